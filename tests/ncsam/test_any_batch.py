"""Training steps on batches of any form: gradients against those of plain torch, in float64."""

import copy
import math

import pytest
import torch
from torch import nn

from ncsam import (
    ASAM,
    BSAM,
    GSAM,
    NCSAM,
    SAM,
    SANER,
    CoTeaching,
    FriendlySAM,
    NoisyLabels,
    Plain,
    Split,
    fit,
)

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()
RHO = 0.1
SAMS = {"sam": SAM, "asam": ASAM, "gsam": GSAM, "friendly-sam": FriendlySAM, "bsam": BSAM, "saner": SANER}


def network(inputs=4, outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs)).to(D)


def samples(count=10):
    return torch.randn(count, 4, dtype=D, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def sam_gradients(model, loss):
    """Two steps of plain torch: at w, and at w + rho g / ||g||."""
    parameters = list(model.parameters())
    at_w = torch.autograd.grad(loss(), parameters)
    length = torch.sqrt(sum(g.square().sum() for g in at_w))
    with torch.no_grad():
        for p, g in zip(parameters, at_w, strict=True):
            p.add_(RHO / length * g)
    found = torch.autograd.grad(loss(), parameters)
    with torch.no_grad():
        for p, g in zip(parameters, at_w, strict=True):
            p.sub_(RHO / length * g)
    return found


def test_a_whole_batch_is_run_by_forward():
    model, (x, y) = network(), samples()
    batch = {"x": x, "y": y}
    method = SAM(
        model,
        lambda outputs, batch: cross_entropy(outputs["scores"], batch["y"]),
        rho=RHO,
        forward=lambda model, batch: {"scores": model(batch["x"])},
    )
    loss = method.backward(batch)
    assert loss.item() == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-12)
    for found, right in zip(
        gradients(model), sam_gradients(model, lambda: cross_entropy(model(x), y)), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
    assert method.gradient_count == 2


def test_a_dict_is_the_models_arguments():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, y):
            return cross_entropy(self.inner(x), y)

    model, (x, y) = Named(), samples()
    Plain(model, lambda outputs, _: outputs).backward({"x": x, "y": y})
    right = torch.autograd.grad(cross_entropy(model.inner(x), y), list(model.parameters()))
    for found, expected in zip(gradients(model), right, strict=True):
        torch.testing.assert_close(found, expected)


def test_inputs_may_be_a_tree_of_tensors():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(8)

        def forward(self, pair):
            return self.inner(torch.cat([pair["a"], pair["b"]], 1))

    model, (x, y) = Two(), samples()
    method = SAM(model, cross_entropy, rho=RHO)
    method.passes.micro_batch_size = 3
    method.backward({"a": x, "b": 2 * x}, y)
    right = sam_gradients(model, lambda: cross_entropy(model({"a": x, "b": 2 * x}), y))
    for found, expected in zip(gradients(model), right, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SAMS)
def test_a_closure_stands_for_a_batch(name):
    model, (x, y) = network(), samples()
    SAMS[name](model, cross_entropy, rho=RHO).backward(x, y)
    right = gradients(model)
    model.zero_grad()
    method = SAMS[name](model, cross_entropy, rho=RHO)
    loss = method.backward(closure=lambda: cross_entropy(model(x), y))
    assert loss.item() == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-12)
    for found, expected in zip(gradients(model), right, strict=True):
        torch.testing.assert_close(found, expected)
    assert method.gradient_count == (3 if name == "bsam" else 2)


WEIGHTED = {
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D)),
    "an ignored class": nn.CrossEntropyLoss(ignore_index=1),
    "a sum": nn.CrossEntropyLoss(reduction="sum"),
    "a sum of squares": nn.MSELoss(reduction="sum"),
}


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("size", [1, 3, 4])
def test_micro_batches_of_a_weighted_mean_have_the_gradient_of_the_batch(name, size):
    model, (x, y), loss_fn = network(), samples(), WEIGHTED[name]
    y = y.sort().values if isinstance(loss_fn, nn.CrossEntropyLoss) else torch.eye(3, dtype=D)[y]
    method = Plain(model, loss_fn)
    method.passes.micro_batch_size = size
    loss = method.backward(x, y)
    whole = loss_fn(model(x), y)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
    for found, right in zip(
        gradients(model), torch.autograd.grad(whole, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(found, right)


def test_a_batch_without_labels_has_the_loss_of_torch_in_micro_batches_too():
    model, (x, y) = network(), samples()
    method = Plain(model, cross_entropy)
    method.passes.micro_batch_size = 4
    assert method.backward(x, torch.full_like(y, -100)).isnan()


def test_micro_batches_count_as_the_caller_says():
    model, (x, y) = network(), samples()
    w = torch.rand(10, dtype=D, generator=torch.Generator().manual_seed(1))

    def loss_fn(outputs, batch):
        return (batch[2] * nn.functional.cross_entropy(outputs, batch[1], reduction="none")).sum() / batch[
            2
        ].sum()

    method = Plain(model, loss_fn, forward=lambda m, batch: m(batch[0]), count=lambda batch: batch[2].sum())
    method.passes.micro_batch_size = 4
    method.backward((x, y, w))
    right = torch.autograd.grad(loss_fn(model(x), (x, y, w)), list(model.parameters()))
    for found, expected in zip(gradients(model), right, strict=True):
        torch.testing.assert_close(found, expected)


class Places(nn.Module):
    """Scores of 3 classes at each of 4 places, (batch, 3, 4)."""

    def __init__(self):
        super().__init__()
        self.inner = network(4, 12)

    def forward(self, x):
        return self.inner(x).view(len(x), 3, 4)


def dense_case():
    torch.manual_seed(0)
    targets = torch.randint(0, 3, (6, 4), generator=torch.Generator().manual_seed(2))
    targets[0] = targets[1, 2:] = -100
    return Places().to(D), samples(6)[0], targets


def ncsam(model, **options):
    loss_fn = options.pop("loss_fn", cross_entropy)
    method = NCSAM(model, loss_fn, rho=RHO, flip_ratio=0.3, strength=0.5, warmup=0.0, **options)
    method.progress = 1.0
    return method


@pytest.mark.parametrize("draw", ["low-margin", "uniform"])
def test_ncsam_relabels_positions_and_leaves_ignored_ones_out(draw):
    model, x, y = dense_case()
    method = ncsam(model, draw=draw)
    method.backward(x, y)
    noise = method.ascent.compensation
    labeled = (y.flatten() != -100).nonzero().flatten()
    assert len(noise.drawn) == len(noise.drawn.unique()) == int(0.3 * len(labeled))
    assert set(noise.drawn.tolist()) <= set(labeled.tolist())
    scores = model(x).movedim(1, -1).flatten(0, 1)[noise.drawn]
    observed = y.flatten()[noise.drawn]
    assert (noise.temporary_targets != observed).all()
    assert torch.equal(
        noise.temporary_targets, scores.scatter(1, observed.unsqueeze(1), -torch.inf).argmax(1)
    )
    right = torch.autograd.grad(cross_entropy(scores, noise.temporary_targets), list(model.parameters()))
    for found, expected in zip(noise.gradient, right, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_ncsam_leaves_ignored_samples_out():
    model, (x, y) = network(), samples()
    y[::2] = -100
    method = ncsam(model, draw="uniform")
    for _ in range(20):
        method.backward(x, y)
        assert (method.ascent.compensation.drawn % 2 == 1).all()


def refused():
    """(method, arguments of backward, what the error says)."""
    model, (x, y) = network(), samples()
    own_loss = NCSAM(
        Places().to(D),
        lambda outputs, targets: cross_entropy(outputs, targets),
        rho=RHO,
        flip_ratio=0.3,
        strength=1.0,
        schedule="constant",
        warmup=0.0,
    )
    peers = CoTeaching(model, cross_entropy, peer=network(seed=1), forget_rate=0.2)
    dense = {"inputs": x, "targets": y.unsqueeze(1).expand(-1, 4)}
    of_padding = ncsam(network(), loss_fn=nn.CrossEntropyLoss(ignore_index=0))
    return {
        "nothing": (SAM(model, cross_entropy, rho=RHO), {}, "^inputs: give a batch, or a closure"),
        "no labels": (ncsam(model), {"inputs": (x, y)}, "^targets: NCSAM needs classes by themselves"),
        "a closure": (ncsam(model), {"closure": model}, "^targets: NCSAM needs classes by themselves"),
        "positions": (own_loss, dense, "^loss_fn: NCSAM relabels single positions"),
        "an ignored class": (
            of_padding,
            {"inputs": x, "targets": y},
            "^loss_fn: ignores the label 0, which is one of",
        ),
        "two networks": (peers, {"closure": model}, "^targets: CoTeaching needs inputs and targets"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_a_method_cannot_take_is_refused(name):
    method, arguments, says = refused()[name]
    with pytest.raises(ValueError, match=says):
        method.backward(**arguments)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_perturbation_of_a_model_in_half_precision_has_its_length(scale, dtype):
    """davda54/sam#7: NaN, or no perturbation at all."""
    model, (x, y) = network().to(dtype), samples()
    method = SAM(model, lambda z, t: scale * cross_entropy(z.float(), t), rho=0.5)
    method.backward(x.to(dtype), y)
    length = torch.sqrt(sum(t.double().square().sum() for t in method.ascent.perturbation)).item()
    assert length == pytest.approx(0.5, rel=0.01)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_gradient_longer_than_half_precision_holds_has_a_perturbation():
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(4, 200_000), nn.Tanh(), nn.Linear(200_000, 3)).half(), samples()
    method = SAM(model, lambda z, t: 2000 * cross_entropy(z.float(), t), rho=50.0)
    method.backward(x.half(), y)
    length = torch.sqrt(sum(t.double().square().sum() for t in method.ascent.perturbation)).item()
    assert length == pytest.approx(50.0, rel=0.01)


def two_updates(model, x, y, *, rho, strength, rate):
    """NCSAM written down once more: all labeled places are drawn, each epoch is one batch."""
    weights = list(model.parameters())
    for progress in (0.5, 1.0):
        scores = model(x)
        g = torch.autograd.grad(cross_entropy(scores, y), weights)
        other = scores.detach().clone()
        for row, column in (y != -100).nonzero().tolist():
            other[row, y[row, column], column] = -math.inf
        relabeled = torch.where(y == -100, y, other.argmax(1))
        simulated = torch.autograd.grad(cross_entropy(model(x), relabeled), weights)
        scale = strength * min(1.0, 2 * (3 - 2 * progress) * progress**2)
        step = [rho * a / length(g) + scale * b for a, b in zip(g, simulated, strict=True)]
        step = [part * min(1.0, rho / float(length(step))) for part in step]
        moved = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, part in zip(weights, step, strict=True):
                w.add_(part)
        descent = torch.autograd.grad(cross_entropy(model(x), y), weights)
        with torch.no_grad():
            for w, start, part in zip(weights, moved, descent, strict=True):
                w.copy_(start - rate * part)


def length(tensors):
    return torch.cat([part.flatten() for part in tensors]).norm()


def test_fit_trains_on_labels_of_positions_as_two_updates_by_hand():
    model, x, y = dense_case()
    truth = torch.where(y == 0, 2, y)
    by_hand = copy.deepcopy(model)
    two_updates(by_hand, x, y, rho=0.3, strength=0.2, rate=0.5)
    method = NCSAM(model, nn.CrossEntropyLoss(), rho=0.3, flip_ratio=1.0, strength=0.2, warmup=0.0)
    labels = NoisyLabels(truth, y, torch.eye(3, dtype=D), "given", 0.3, 0, "empirical")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    history = fit(method, optimizer, Split(x, y), labels, Split(x, truth), epochs=2, batch_size=6, seed=0)
    for found, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    last = {name: values[-1] for name, values in history.metrics.items()}
    scores, labeled = by_hand(x).detach(), y != -100
    hits = scores.argmax(1)[labeled]
    assert last["train_loss"] == pytest.approx(cross_entropy(scores, y).item())
    assert last["test_loss"] == pytest.approx(cross_entropy(scores, truth).item())
    assert last["train_accuracy"] == (hits == y[labeled]).double().mean()
    assert last["test_accuracy"] == last["train_clean_accuracy"] == (hits == truth[labeled]).double().mean()
    wrong = (y != truth)[labeled]
    assert last["memorized"] == (hits == 0)[wrong].double().mean()
    assert last["recovered"] == (hits == 2)[wrong].double().mean()


def test_fit_names_the_position_of_a_label_out_of_range():
    model, x, y = dense_case()
    wrong = y.clone()
    wrong[3, 1] = 7
    method = ncsam(model)
    labels = NoisyLabels(y, wrong, torch.eye(3, dtype=D), "given", 0.1, 0, "empirical")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(
        ValueError, match="observed label of sample 3, position 1 is 7; the model has 3 outputs"
    ):
        fit(method, optimizer, Split(x, y), labels, Split(x, y), epochs=1, batch_size=6, seed=0)
