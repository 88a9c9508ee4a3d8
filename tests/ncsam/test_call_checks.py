"""Mistakes in how a method is made and called: each is refused or told, with what to give instead."""

import copy
import pickle

import pytest
import torch
from torch import nn

from ncsam import (
    NCSAM,
    SAM,
    SOP,
    CoTeaching,
    JacobianPenalty,
    Plain,
    RegCE,
    Split,
    corrupt_labels,
    load_dataset,
    make_dataset,
)
from ncsam.label_noise import human_labels

cross_entropy = nn.CrossEntropyLoss()
INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 3


def network(*last, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 3), *last)


def sam(*last, loss_fn=cross_entropy):
    return SAM(network(*last), loss_fn, rho=0.1)


class Scores(nn.Module):
    """A model with several arguments and outputs by name, as Hugging Face's have."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, values, scale):
        return {"logits": self.inner(values * scale)}


class OnlyScores(Scores):
    def forward(self, values, scale):
        return super().forward(values, scale)["logits"]


@pytest.mark.parametrize("loss", [cross_entropy, nn.functional.cross_entropy], ids=["module", "function"])
def test_a_model_and_a_loss_that_are_swapped_are_told(loss):
    with pytest.raises(TypeError, match=r"^model, loss_fn: .* are swapped; give the model first"):
        SAM(loss, network(), rho=0.1)


def test_a_loss_in_the_place_of_a_batch_is_told():
    method = sam()
    with pytest.raises(
        ValueError, match=r"^inputs: got a scalar, such as a loss.*\(inputs, targets\), or closure="
    ):
        method.backward(cross_entropy(method.model(INPUTS), TARGETS))


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ((INPUTS.numpy(), TARGETS.numpy()), "inputs"),
        ((INPUTS, TARGETS.numpy()), "targets"),
        ((INPUTS.tolist(), TARGETS), "inputs"),
        ((INPUTS, TARGETS.tolist()), "targets"),
        (({"values": INPUTS.numpy()}, TARGETS), "inputs"),
    ],
)
def test_a_batch_of_what_is_no_tensor_is_told_to_become_one(batch, field):
    with pytest.raises(ValueError, match=rf"; give torch\.as_tensor\({field}\)"):
        sam().backward(*batch)


@pytest.mark.parametrize("targets", [TARGETS.numpy(), TARGETS.tolist()])
def test_classes_that_are_no_tensor_are_told_to_become_one(targets):
    method = NCSAM(network(), cross_entropy, rho=0.1, flip_ratio=0.4, strength=0.1, schedule="constant")
    with pytest.raises(TypeError, match="^targets: must be a tensor .*; torch.as_tensor makes one"):
        method.backward(INPUTS, targets)


def test_a_forward_of_ones_own_may_take_arrays():
    method = SAM(
        network(),
        lambda outputs, batch: cross_entropy(outputs, torch.from_numpy(batch[1])),
        rho=0.1,
        forward=lambda model, batch: model(torch.from_numpy(batch[0])),
    )
    loss = method.backward((INPUTS.numpy(), TARGETS.numpy()))
    assert loss == pytest.approx(sam().backward(INPUTS, TARGETS).item())


@pytest.mark.parametrize("name", ["step", "zero_grad"])
def test_a_method_that_is_taken_for_an_optimizer_says_who_steps(name):
    with pytest.raises(
        AttributeError, match=rf"^{name}: SAM is no optimizer .*method\.parameters\(\), has {name}\(\)"
    ):
        getattr(sam(), name)()


def test_other_missing_attributes_are_named_and_copies_work():
    method = sam()
    with pytest.raises(AttributeError, match="^'SAM' object has no attribute 'radius'"):
        _ = method.radius
    assert copy.deepcopy(method).rho == pickle.loads(pickle.dumps(method)).rho == 0.1


def test_images_of_bytes_are_told_to_become_floats():
    images = (INPUTS * 50 + 128).to(torch.uint8)
    with pytest.raises(
        ValueError, match=r"^inputs: are whole numbers in torch\.uint8.*inputs\.float\(\) / 255"
    ):
        sam().backward(images, TARGETS)


def test_inputs_on_another_device_than_the_model_are_named_with_it():
    with pytest.raises(ValueError, match="^inputs: lie on the device 'meta'.* on 'cpu'; load the data"):
        sam().backward(INPUTS.to("meta"), TARGETS)


def test_a_dict_of_arguments_with_separate_labels_is_run_by_name():
    inputs = {"values": INPUTS, "scale": torch.full((12, 1), 2.0)}
    model = OnlyScores()
    NCSAM(
        model, cross_entropy, rho=0.1, flip_ratio=0.0, strength=0.1, warmup=0.0, schedule="constant"
    ).backward(inputs, TARGETS)
    alone = sam()
    alone.backward(2 * INPUTS, TARGETS)
    for found, right in zip(model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, right.grad)


def test_forward_picks_the_scores_of_a_dict_with_separate_labels():
    inputs = {"values": INPUTS, "scale": torch.full((12, 1), 2.0)}
    model = Scores()
    settings = {"rho": 0.1, "flip_ratio": 0.0, "strength": 0.1, "warmup": 0.0, "schedule": "constant"}
    with pytest.raises(ValueError, match="^targets: NCSAM needs classes .*forward=lambda model, inputs"):
        NCSAM(model, cross_entropy, **settings).backward({**inputs, "labels": TARGETS})
    with pytest.raises(ValueError, match="^loss_fn: fails .* model's dict as it is.*forward="):
        NCSAM(model, cross_entropy, **settings).backward(inputs, TARGETS)
    NCSAM(model, cross_entropy, forward=lambda model, inputs: model(**inputs)["logits"], **settings).backward(
        inputs, TARGETS
    )
    alone = sam()
    alone.backward(2 * INPUTS, TARGETS)
    for found, right in zip(model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(found.grad, right.grad)


@pytest.mark.parametrize("kind", [Plain, SAM])
@pytest.mark.parametrize(
    ("last", "loss_fn", "says"),
    [
        (nn.Softmax(1), cross_entropy, "^model: its outputs are probabilities .*leave the softmax out"),
        (nn.Softmax(1), nn.functional.cross_entropy, "^model: its outputs are probabilities"),
        (nn.Identity(), nn.NLLLoss(), r"^model: its outputs are no logarithms .*LogSoftmax\(1\)"),
    ],
    ids=["softmax", "softmax of the function", "scores"],
)
def test_outputs_that_the_loss_does_not_take_are_told_once(kind, last, loss_fn, says, recwarn):
    method = kind(network(last), loss_fn, **({"rho": 0.1} if kind is SAM else {}))
    with pytest.warns(UserWarning, match=says):
        method.backward(INPUTS, TARGETS)
    recwarn.clear()
    method.backward(INPUTS, TARGETS)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("last", "loss_fn"),
    [(nn.Identity(), cross_entropy), (nn.ReLU(), cross_entropy), (nn.LogSoftmax(1), nn.NLLLoss())],
    ids=["scores", "scores that are not negative", "logarithms"],
)
def test_outputs_that_the_loss_takes_pass_in_silence(last, loss_fn, recwarn):
    sam(last, loss_fn=loss_fn).backward(INPUTS, TARGETS)
    assert not recwarn.list


def test_data_and_labels_print_their_shapes_and_counts_alone():
    data = load_dataset("digits")
    assert repr(data.train) == (
        f"Split({len(data.train):,} samples of shape (1, 8, 8), torch.uint8, normalized when read, on cpu)"
    )
    assert repr(data) == f"Dataset('digits', 10 classes, train={data.train}, test={data.test})"
    assert repr(Split(INPUTS, TARGETS)) == "Split(12 samples of shape (4,), torch.float32, on cpu)"
    pair = (INPUTS, TARGETS)
    assert ", with annotators' labels, train=" in repr(make_dataset("mine", pair, pair, observed=TARGETS))


def test_noisy_labels_print_the_rate_that_they_have():
    labels = corrupt_labels(TARGETS, rate=0.4, seed=3)
    assert repr(labels) == (
        "NoisyLabels(kind='symmetric', rate=0.4, seed=3, 3 classes: 5 of 12 labels are wrong, realised_rate=0.416667)"
    )
    assert "0 of 12 labels are wrong" in repr(human_labels(TARGETS, TARGETS))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((TARGETS.numpy(), TARGETS), TypeError, "^clean: must be a tensor"),
        ((TARGETS.float(), TARGETS), ValueError, "^clean: must be int64"),
        ((TARGETS % 2, TARGETS), ValueError, "^observed: .* if there are more classes, give num_classes=3$"),
    ],
)
def test_labels_of_people_are_refused_by_the_name_of_their_argument(given, error, words):
    with pytest.raises(error, match=words):
        human_labels(*given)


WITHOUT_SETTINGS = {
    "plain": lambda: Plain(network(), cross_entropy),
    "jacobian-penalty": lambda: JacobianPenalty(network(), cross_entropy, seed=0, strength=1.0),
    "sop": lambda: SOP(network(), cross_entropy, samples=12, seed=0),
    "co-teaching": lambda: CoTeaching(network(), cross_entropy, peer=network(seed=1), forget_rate=0.25),
    "regce": lambda: RegCE(network(), cross_entropy),
    "sam": sam,
}


@pytest.mark.parametrize("name", WITHOUT_SETTINGS)
def test_a_step_without_gradients_says_what_turns_them_off(name):
    method = WITHOUT_SETTINGS[name]()
    method.progress = 0.5
    with torch.no_grad(), pytest.raises(ValueError, match=r"^loss_fn: .* outside of torch.no_grad"):
        method.backward(INPUTS, TARGETS, torch.arange(12))
