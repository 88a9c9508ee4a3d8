"""Common mistakes in a call: each is refused with its own remedy, or measured with a warning that names it."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective, spectral_density, tasks, top_eigenvalues, trace
from landscape.tasks import label_loss, next_token_loss

cross_entropy, nll_loss = nn.functional.cross_entropy, nn.functional.nll_loss
ones = nn.functional.one_hot


def samples(count=120):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 5, generator=generator), torch.arange(count) % 3


def network(*last, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, outputs), *last)


class Classes(nn.Sequential):
    def forward(self, x):
        return super().forward(x).argmax(1)


SCORES = {
    "probabilities, module": (nn.Softmax(1), nn.CrossEntropyLoss(), "leave the softmax out"),
    "probabilities, weighted": (
        nn.Softmax(1),
        nn.CrossEntropyLoss(weight=torch.arange(1.0, 4)),
        "leave the softmax out",
    ),
    "probabilities, function": (nn.Softmax(1), cross_entropy, "leave the softmax out"),
    "probabilities, options": (
        nn.Softmax(1),
        functools.partial(cross_entropy, label_smoothing=0.1),
        "leave the softmax out",
    ),
    "probabilities, own": (nn.Softmax(1), lambda o, t: cross_entropy(o, t), "leave the softmax out"),
    "scores, module": (nn.Identity(), nn.NLLLoss(), r"end the model with LogSoftmax\(1\)"),
    "scores, own": (nn.Identity(), lambda o, t: nll_loss(o, t), r"end the model with LogSoftmax\(1\)"),
    "probabilities for logarithms": (nn.Softmax(1), nn.NLLLoss(), r"end the model with LogSoftmax\(1\)"),
}


@pytest.mark.parametrize(("last", "loss_fn", "says"), SCORES.values(), ids=SCORES)
def test_outputs_of_another_kind_than_the_loss_takes_are_measured_with_a_warning(last, loss_fn, says):
    with pytest.warns(UserWarning, match=f"^model: its outputs are .*{says}"):
        Objective(network(last), loss_fn, samples())


@pytest.mark.parametrize(
    ("last", "loss_fn"),
    [
        (nn.Identity(), nn.CrossEntropyLoss()),
        (nn.Softplus(), nn.CrossEntropyLoss()),
        (nn.LogSoftmax(1), nn.NLLLoss()),
        (nn.LogSoftmax(1), lambda o, t: nll_loss(o, t)),
        (nn.Softmax(1), lambda o, t: nll_loss(o.log(), t)),
        (nn.Softmax(1), lambda o, t: nn.functional.mse_loss(o, ones(t, 3).float())),
    ],
)
def test_outputs_of_the_right_kind_raise_no_warning(last, loss_fn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Objective(network(last), loss_fn, samples())


class Words(nn.Module):
    """A causal language model without options: each word's scores follow from the words up to it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids, attention_mask=None):  # noqa: ARG002
        return {"logits": self.head(torch.tanh(self.words(input_ids).cumsum(1)))}


def text(ignored=False, shuffled=False):
    words = torch.randint(11, (7, 5), generator=torch.Generator().manual_seed(2))
    labels = words.flip(1) if shuffled else words.clone()
    if ignored:
        labels[:, -1] = tasks.IGNORED
    return {"input_ids": words, "labels": labels}


@pytest.mark.parametrize("ignored", [False, True])
def test_a_language_model_that_is_asked_for_its_own_words_is_measured_with_a_warning(ignored):
    with pytest.warns(UserWarning, match=r"^labels: are the input_ids.* next_token_loss and"):
        Objective(Words(), label_loss, text(ignored), **tasks.hugging_face())


class Copies(Words):
    """An encoder-decoder that makes the decoder's words of the labels, each one place later."""

    def forward(self, input_ids, labels=None, decoder_input_ids=None):
        given = labels.clamp_min(0).roll(1, 1) if decoder_input_ids is None else decoder_input_ids
        hidden = self.words(given).cumsum(1) + self.words(input_ids).mean(1, keepdim=True)
        return {"logits": self.head(torch.tanh(hidden))}


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("makes", [False, True])
def test_a_decoder_that_gets_each_word_one_place_later_may_copy_its_input(ignored, makes):
    batch = text(ignored)
    if not makes:
        batch["decoder_input_ids"] = batch["input_ids"].roll(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Objective(Copies(), label_loss, batch, **tasks.hugging_face(sequence_to_sequence=makes))


def test_a_decoder_that_gets_each_word_at_its_own_place_is_measured_with_a_warning():
    batch = text()
    batch["decoder_input_ids"] = batch["labels"].clone()
    with pytest.warns(UserWarning, match=r"^labels: are the input_ids"):
        Objective(Copies(), label_loss, batch, **tasks.hugging_face())


def test_labels_of_words_that_are_other_words_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Objective(Words(), label_loss, text(shuffled=True), **tasks.hugging_face())


def test_a_causal_language_model_need_not_know_of_a_cache():
    model, batch = Words(), text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = Objective(model, next_token_loss, batch, **tasks.causal_language_model())
    logits = model(batch["input_ids"])["logits"]
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert objective.value() == pytest.approx(expected.item(), rel=1e-6)


x, y = samples()
CALLS = {
    "swapped": ((nn.CrossEntropyLoss(), network(), (x, y)), "^model, loss_fn: .* swapped"),
    "a class of losses": ((network(), nn.CrossEntropyLoss, (x, y)), r"^loss_fn: .* CrossEntropyLoss\(\)$"),
    "a name": ((network(), "cross_entropy", (x, y)), r"^loss_fn: must be called .* got 'cross_entropy'"),
    "classes in float": ((network(), nn.CrossEntropyLoss(), (x, y.float())), r"give targets\.long\(\)$"),
    "classes in int32": ((network(), nn.CrossEntropyLoss(), (x, y.int())), r"give targets\.long\(\)$"),
    "a column of classes": ((network(), nn.CrossEntropyLoss(), (x, y[:, None])), r"targets\.squeeze\(1\)"),
    "one-hot rows": ((network(), nn.CrossEntropyLoss(), (x, ones(y))), r"give targets\.float\(\), or"),
    "classes as outputs": ((Classes(*network()), nn.CrossEntropyLoss(), (x, y)), "leave argmax out"),
    "weights of two classes": (
        (network(), nn.CrossEntropyLoss(weight=torch.ones(2)), (x, y)),
        "give weight= a number for each of the 3 classes$",
    ),
    "squares of classes": (
        (network(), nn.MSELoss(), (x, y)),
        r"give torch.nn.functional.one_hot\(targets, 3\)",
    ),
    "bits of classes": ((network(), nn.BCEWithLogitsLoss(), (x, y)), r"one_hot\(targets, 3\)\.float\(\)"),
    "bits of a column": (
        (network(outputs=1), nn.BCEWithLogitsLoss(), (x, (y > 0).float())),
        r"give targets\.unsqueeze\(-1\)$",
    ),
    "truth values": (
        (network(outputs=1), nn.BCEWithLogitsLoss(), (x, y[:, None] > 0)),
        r"give targets\.float\(\)$",
    ),
    "squares of a column": (
        (network(outputs=1), nn.MSELoss(), (x, y.float())),
        r"apart their mean is .* give targets\.unsqueeze\(-1\); else give count=",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("arguments", "says"), CALLS.values(), ids=CALLS)
def test_a_common_mistake_is_refused_with_the_remedy_of_its_cause(arguments, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Objective(*arguments)


@pytest.mark.parametrize("label", [3, 255, -1])
@pytest.mark.parametrize("weight", [None, torch.arange(1.0, 4)])
@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_label_that_is_no_class_is_refused_with_its_sample(label, weight, keep):
    targets = y.clone()
    targets[77] = label
    data = DataLoader(TensorDataset(x, targets), batch_size=16)
    with pytest.raises(
        ValueError,
        match=f"^data: the target of sample 77 is {label}, .* 3 classes, 0 to 2; .* ignore_index={label}$",
    ):
        Objective(network(), nn.CrossEntropyLoss(weight=weight), data, keep=keep)


def test_a_pixel_that_is_no_class_is_refused_with_its_image():
    targets = torch.arange(6 * 4 * 4).view(6, 4, 4) % 3
    targets[4, 2, 1] = 7
    with pytest.raises(ValueError, match="^data: the target of sample 4 is 7"):
        Objective(nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(), (torch.randn(6, 2, 4, 4), targets))


def test_an_ignored_label_need_be_no_class():
    targets = y.clone()
    targets[77] = 255
    assert Objective(network(), nn.CrossEntropyLoss(ignore_index=255), (x, targets)).weight == 119


@pytest.mark.parametrize(("dtype", "warns"), [(torch.bfloat16, True), (torch.float32, False)])
def test_eigenvalues_in_half_precision_say_that_its_rounding_ended_the_search(dtype, warns):
    objective = Objective(network().to(dtype), nn.CrossEntropyLoss(), (x.to(dtype), y))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        top_eigenvalues(objective, 2)
    said = [str(each.message) for each in found if str(each.message).startswith("tol: torch.bfloat16 rounds")]
    assert bool(said) == warns
    assert all("dtype=torch.float32" in each for each in said)


def with_kinks(dtype):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    ).to(dtype)


def of_products(objective):
    trace(objective, max_products=8, seed=0)
    top_eigenvalues(objective, 1)
    spectral_density(objective, probes=2, steps=4, seed=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products_in_half_precision_say_once_what_rounding_adds_to_all_errors(dtype):
    objective = Objective(with_kinks(dtype), nn.CrossEntropyLoss(), (x.to(dtype), y))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        of_products(objective)
    said = [str(each.message) for each in found if "no stated error" in str(each.message)]
    assert len(said) == (dtype != torch.float32)
    for each in said:
        assert "dtype=torch.float32" in each
        share = float(each.partition("differs by ")[2].split()[0])
        # a few units of the last digit at least, and below the product itself
        assert torch.finfo(dtype).eps / 8 < share < 1


SAMPLES = {
    "short mask": (
        torch.ones(5, dtype=torch.bool),
        "a mask must have an entry for each of the 120 samples, got 5",
    ),
    "beyond": (torch.tensor([3, 500]), r"indices must lie in \[0, 120\), got 3 to 500"),
    "floats": (torch.tensor([1.0]), r"must be indices .* got \(1,\) in torch.float32"),
    "rows": (torch.ones(120, 1, dtype=torch.bool), r"must be indices .* got \(120, 1\)"),
}


@pytest.mark.parametrize(("rows", "says"), SAMPLES.values(), ids=SAMPLES)
def test_samples_that_are_none_are_refused(rows, says):
    with pytest.raises(ValueError, match=f"^samples: {says}"):
        Objective(network(), nn.CrossEntropyLoss(), (x, y)).subset(samples=rows)


BATCHES = {
    "a list of labels": (
        (x, y.tolist()),
        r"targets of a batch are a list of numbers; give torch.tensor\(targets\)",
    ),
    "a list of two tensors": ([x, y], "give inputs and targets as a tuple"),
    "on no device": ((x.to("meta"), y), "on the meta device"),
    "images of bytes": (((x.abs() * 50).to(torch.uint8), y), r"give inputs.float\(\), .* / 255"),
    "sparse": ((x.to_sparse(), y), r"a batch holds a sparse tensor, .*\(tensor.to_dense\(\) is"),
    "strings": ((x, [str(each) for each in y.tolist()]), "a batch holds a str, which is no tensor"),
}


@pytest.mark.parametrize(("batch", "says"), BATCHES.values(), ids=BATCHES)
def test_a_batch_of_another_form_is_refused_with_its_own_remedy(batch, says):
    with pytest.raises(ValueError, match=f"^(data|count): .*{says}"):
        Objective(network(), nn.CrossEntropyLoss(), batch)
