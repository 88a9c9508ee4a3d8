import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from landscape import Objective, filter_normalized_directions, line, top_eigenvalues
from tests.conftest import build, dense_hessian, flat, loss_of_vector

cross_entropy = nn.CrossEntropyLoss()
WEIGHTS = torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)


def custom(loss_fn):
    """The same loss as a function, of which nobody knows what it divides by."""
    return lambda outputs, targets: loss_fn(outputs, targets)


@pytest.mark.parametrize("chunk_size", [1, 5, 36, 37, 100])
def test_value_gradient_and_products_are_the_exact_mean_whatever_the_chunk_size(case, chunk_size):
    model, inputs, targets = case
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size)
    truth = loss_of_vector(model, inputs, targets)
    theta = flat(model)
    vectors = torch.randn(len(theta), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert objective.value() == pytest.approx(truth(theta).item(), rel=1e-12)
    gradient = torch.autograd.functional.jacobian(truth, theta)
    torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
    hessian = dense_hessian(model, inputs, targets)
    torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(objective.hvp(vectors[:, 0]), hessian @ vectors[:, 0], rtol=1e-9, atol=1e-11)


def test_accuracy_counts_the_largest_output():
    model, inputs, targets = build("mlp")
    expected = (model(inputs).argmax(1) == targets).double().mean().item()
    assert Objective(model, cross_entropy, (inputs, targets), chunk_size=10).evaluate().accuracy == expected


@pytest.mark.parametrize("order", [("soft", "hard"), ("hard", "soft")])
def test_classes_and_shares_of_classes_in_one_loader_have_no_accuracy(order):
    model, inputs, targets = build("mlp")
    of = {"hard": targets, "soft": model(inputs).detach().neg().softmax(1)}
    assert math.isnan(
        Objective(model, cross_entropy, [(inputs, of[name]) for name in order]).evaluate().accuracy
    )


def test_an_iterable_of_uneven_batches_is_the_same_data_set():
    model, inputs, targets = build("mlp")
    whole = Objective(model, cross_entropy, (inputs, targets))
    batches = Objective(model, cross_entropy, zip(inputs.split(15), targets.split(15), strict=True))
    assert batches.value() == whole.value()
    torch.testing.assert_close(batches.gradient(), whole.gradient())


def test_float64_is_measured_on_request():
    model, inputs, targets = build("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets), dtype=torch.float64)
    truth = loss_of_vector(model.double(), inputs.float().double(), targets)
    assert objective.theta.dtype == torch.float64
    assert objective.value() == pytest.approx(truth(flat(model)).item(), rel=1e-12)


def test_a_chosen_layer_is_a_diagonal_block_of_the_hessian():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), parameters=lambda n: n.startswith("3."))
    assert objective.names == ("3.weight", "3.bias")
    block = dense_hessian(model, inputs, targets)[-18:, -18:]
    torch.testing.assert_close(objective.hvp(torch.eye(18, dtype=torch.float64)), block)


def test_regression_with_a_closed_form_hessian():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    targets = torch.randn(50, 1, dtype=torch.float64, generator=generator)
    model = nn.Linear(4, 1, bias=False).double()
    objective = Objective(model, nn.MSELoss(), (inputs, targets), chunk_size=7)
    hessian = objective.hvp(torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(hessian, 2 * inputs.T @ inputs / 50, rtol=1e-12, atol=1e-14)
    assert objective.evaluate().accuracy != objective.evaluate().accuracy  # NaN: no classes


def test_a_loss_linear_in_the_weights_has_a_zero_hessian():
    model = nn.Linear(3, 1)
    data = (torch.randn(5, 3), torch.zeros(5))
    objective = Objective(model, lambda outputs, _: outputs.mean(), data)
    assert torch.equal(objective.hvp(torch.ones(4)), torch.zeros(4))


@pytest.mark.parametrize(
    ("loss_fn", "names"),
    [
        (custom(nn.CrossEntropyLoss(reduction="sum")), "loss_fn"),
        (custom(nn.CrossEntropyLoss(weight=WEIGHTS)), "loss_fn"),
        (nn.CrossEntropyLoss(reduction="none"), "loss_fn"),
    ],
)
def test_a_loss_that_is_not_the_mean_over_samples_is_refused(loss_fn, names):
    model, inputs, targets = build("mlp")
    with pytest.raises(ValueError, match=names):
        Objective(model, loss_fn, (inputs, targets))


def test_a_class_weight_is_noticed_on_a_rare_class():
    model, inputs, targets = build("mlp")
    rare = torch.zeros_like(targets)
    rare[17] = 2
    weighted = custom(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 40.0], dtype=torch.float64)))
    with pytest.raises(ValueError, match="^loss_fn"):
        Objective(model, weighted, (inputs, rare))


def test_an_ignored_class_is_noticed():
    model, inputs, targets = build("mlp")
    with pytest.raises(ValueError, match="^loss_fn"):
        Objective(model, custom(nn.CrossEntropyLoss(ignore_index=2)), (inputs, targets))


class Tokens(nn.Module):
    """Scores of 3 classes at each of 12 places, (n, 3, 12)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1))

    def forward(self, x):
        return x.reshape(len(x), 1, 12) * self.scale + self.scale.cumsum(0)


@pytest.mark.parametrize("repeats", [1, 3000])
@pytest.mark.parametrize("loss_fn", [cross_entropy, nn.CrossEntropyLoss(ignore_index=255)])
def test_entries_ignored_in_a_single_row_of_many_places_are_noticed(loss_fn, repeats):
    inputs = torch.randn(37, 12, generator=torch.Generator().manual_seed(0)).repeat(repeats, 1)
    targets = torch.randint(0, 3, (37, 12), generator=torch.Generator().manual_seed(0)).repeat(repeats, 1)
    Objective(Tokens(), custom(loss_fn), (inputs, targets))
    targets[17, :5] = loss_fn.ignore_index
    with pytest.raises(ValueError, match="^loss_fn: is not the mean"):
        Objective(Tokens(), custom(loss_fn), (inputs, targets))


def test_a_single_logit_has_no_accuracy_here():
    data = (torch.randn(9, 3), torch.tensor([0, 1, 0] * 3))
    objective = Objective(
        nn.Linear(3, 1), lambda z, y: nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float()), data
    )
    assert objective.evaluate().accuracy != objective.evaluate().accuracy


def test_classes_ruled_out_by_minus_infinity_do_not_spoil_the_accuracy():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.cat([x * self.scale, torch.full((len(x), 1), -torch.inf)], 1)

    data = (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert Objective(Masked(), cross_entropy, data).evaluate().accuracy == 1


def test_training_the_loss_does_not_move_the_objective():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, outputs, targets):
            return cross_entropy(outputs / self.temperature, targets)

    model, inputs, targets = build("mlp")
    loss_fn = Tempered()
    with pytest.warns(UserWarning, match="loss_fn: its own 1 trainable parameters are constants"):
        objective = Objective(model, loss_fn, (inputs, targets))
    before = objective.value()
    with torch.no_grad():
        loss_fn.temperature.mul_(3)
    assert objective.value() == before


def test_a_model_that_changes_its_inputs_does_not_change_the_data():
    class InPlace(nn.Linear):
        def forward(self, x):
            return super().forward(x.add_(1))

    objective = Objective(InPlace(3, 2), cross_entropy, (torch.randn(6, 3), torch.tensor([0, 1] * 3)))
    assert objective.value() == objective.value()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chunk_size": 0}, "chunk_size"),
        ({"parameters": lambda _: False}, "parameters"),
        ({"data": []}, "data"),
        ({"data": [torch.zeros(3, 2, 6, 6), torch.zeros(3, dtype=torch.int64)]}, "data"),
        ({"data": TensorDataset(torch.zeros(3, 2, 6, 6), torch.zeros(3, dtype=torch.int64))}, "data"),
        ({"data": [(torch.zeros(3, 2, 6, 6), torch.zeros(3, dtype=torch.int64), torch.ones(3))]}, "data"),
        ({"data": [{"x": torch.zeros(3, 2, 6, 6), "y": torch.zeros(3, dtype=torch.int64)}]}, "data"),
        ({"data": [({"x": torch.zeros(3, 2, 6, 6)}, torch.zeros(3, dtype=torch.int64))]}, "data"),
        ({"data": (torch.zeros(3, 2, 6, 6), torch.zeros(2, dtype=torch.int64))}, "data"),
    ],
)
def test_bad_arguments_are_named(change, field):
    model, inputs, targets = build("mlp")
    arguments = {"data": (inputs, targets), **change}
    with pytest.raises(ValueError, match=f"^{field}"):
        Objective(model, cross_entropy, **arguments)


@pytest.mark.parametrize(("field", "value"), [("dtype", "float64"), ("parameters", ["0.weight"])])
def test_arguments_of_another_type_are_named(field, value):
    model, inputs, targets = build("mlp")
    with pytest.raises(TypeError, match=f"^{field}: must be a "):
        Objective(model, cross_entropy, (inputs, targets), **{field: value})


@pytest.mark.parametrize(
    "form", [lambda z: (z, z), lambda z: {"logits": z}, lambda z: z.flatten(), torch.sum]
)
def test_outputs_that_are_no_rows_are_the_models_to_mend_where_the_loss_does_not_take_them(form):
    class Formed(nn.Linear):
        def forward(self, x):
            return form(super().forward(x))

    with pytest.raises(
        ValueError, match="^loss_fn: fails on .*the model returns (a tuple|a dict|no row of outputs)"
    ):
        Objective(Formed(3, 2), cross_entropy, (torch.randn(6, 3), torch.tensor([0, 1] * 3)))


def test_wrong_vector_lengths_are_named():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match="^vectors"):
        objective.hvp(torch.ones(3))
    with pytest.raises(ValueError, match="^vectors"):
        objective.hvp(torch.ones(objective.n_parameters, 0))
    with pytest.raises(ValueError, match="^vectors"):
        objective.hvp(torch.tensor(1.0))
    with pytest.raises(TypeError, match="^start: must be a tensor .*; torch.as_tensor makes one"):
        top_eigenvalues(objective, start=np.ones(objective.n_parameters))
    with pytest.raises(ValueError, match="^start: must be"):
        top_eigenvalues(objective, start=objective.theta)
    with pytest.raises(ValueError, match="^theta"):
        objective.value(torch.ones(3))


@pytest.mark.parametrize("ignored", [-100, 255])
@pytest.mark.parametrize("keep", ["all", "none"])
def test_samples_with_an_ignored_label_have_no_accuracy(ignored, keep):
    """They were counted as wrong."""
    model, inputs, targets = build("mlp")
    is_ignored = torch.arange(len(targets)) % 4 == 0
    labels = torch.where(is_ignored, ignored, targets)
    loader = list(zip(inputs.split(10), labels.split(10), strict=True))
    data = torch.utils.data.DataLoader(loader, batch_size=None)
    objective = Objective(model, nn.CrossEntropyLoss(ignore_index=ignored), data, keep=keep)
    right = (model.eval()(inputs).argmax(1) == targets)[~is_ignored].double().mean().item()
    assert objective.evaluate().accuracy == pytest.approx(right)
    found = line(objective, filter_normalized_directions(objective, 1, seed=0), steps=3)
    assert found.accuracy[1] == pytest.approx(right)


CHANGED = {
    "inputs": lambda inputs, _: inputs.mul_(2),
    "labels": lambda _, targets: targets.copy_((targets + 1) % 3),
    "a view of the inputs": lambda inputs, _: inputs[3:5].zero_(),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_data_that_torch_changes_after_the_objective_was_made_are_refused(change):
    """The numbers before and after were of two losses, without a word."""
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=False)
    eigen = objective.hvp(objective.theta)
    direction = filter_normalized_directions(objective, 1, seed=0)
    change(inputs, targets)
    for measure in (
        objective.evaluate,
        objective.gradient,
        lambda: objective.hvp(eigen),
        lambda: line(objective, direction, steps=3),
        lambda: objective.subset(samples=torch.arange(3)),
    ):
        with pytest.raises(ValueError, match=r"^data: were changed in place.*make a new Objective"):
            measure()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_a_copy_of_an_objective_counts_the_changes_of_its_own_data(copied):
    model, inputs, targets = build("mlp")
    inputs.mul_(2)
    objective = Objective(model, cross_entropy, (inputs, targets))
    own = copied(objective)
    assert own.value() == objective.value()
    own.inputs.mul_(2)
    with pytest.raises(ValueError, match=r"^data: were changed in place"):
        own.value()


def test_copies_of_data_outlive_changes_of_the_data():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs.clone(), targets.clone()))
    some = Objective(model, cross_entropy, (inputs, targets)).subset(samples=torch.arange(9))
    before = objective.value(), some.value()
    inputs.zero_()
    assert (objective.value(), some.value()) == before


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.5])),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.5])),
    ],
    ids=["class weights", "weights of positives"],
)
def test_a_loss_module_is_cast_with_the_model(loss_fn):
    """Its weights stayed in float32, and torch does not mix dtypes; the caller's loss is left as it is."""
    model, inputs, targets = build("mlp")
    if isinstance(loss_fn, nn.BCEWithLogitsLoss):
        targets = nn.functional.one_hot(targets, 3).float()
    short = Objective(model.float(), loss_fn, (inputs.float(), targets), dtype=torch.float64)
    tensors = {name: tensor.double() for name, tensor in loss_fn.named_buffers()}
    long = type(loss_fn)(**tensors)
    labels = targets.double() if targets.is_floating_point() else targets
    expected = long(model.double()(inputs.float().double()), labels).item()
    assert short.value() == pytest.approx(expected, rel=1e-12)
    assert all(tensor.dtype == torch.float32 for tensor in loss_fn.buffers())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.decoder = nn.Linear(5, 5, bias=False), nn.Linear(5, 5)
        self.decoder.weight = self.words.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.words(x)))


def test_a_shared_weight_is_chosen_by_any_of_its_names():
    data = torch.randn(6, 5), torch.arange(6) % 5

    def is_chosen(name):
        return name.startswith("decoder.")

    whole = Objective(Tied(), nn.CrossEntropyLoss(), data)
    says = "'words.weight' and 'decoder.weight' are one parameter, which is a variable"
    with pytest.warns(UserWarning, match=says):
        assert whole.subset(parameters=is_chosen).names == ("words.weight", "decoder.bias")
    with pytest.warns(UserWarning, match=says):
        assert Objective(Tied(), nn.CrossEntropyLoss(), data, parameters=is_chosen).n_parameters == 30


def test_a_shared_weight_that_is_chosen_by_its_name_in_the_layout_needs_no_warning(recwarn):
    data = torch.randn(6, 5), torch.arange(6) % 5
    whole = Objective(Tied(), nn.CrossEntropyLoss(), data)
    for name in whole.names:
        assert whole.subset(parameters=lambda each, name=name: each == name).names == (name,)
    assert not recwarn.list
