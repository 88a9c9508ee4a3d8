"""The alignment of perturbations, against gradients that are computed one by one."""

import math

import pytest
import torch
from torch import nn

from ncsam import SAM
from ncsam.alignment import perturbation_alignment
from ncsam.methods.tensor_lists import cosine
from tests.ncsam.small_training import loss_fn, prepare, train


def test_a_cosine_is_never_beyond_one():
    draws = [[torch.randn(50, generator=torch.Generator().manual_seed(seed))] for seed in range(200)]
    found = [cosine(draw, draw) for draw in draws]
    assert min(found) > 0.999
    assert max(found) == 1


class TestAlignment:
    """Each cosine against gradients computed one by one."""

    @pytest.fixture
    def step(self, digits):
        dataset, labels = digits
        method, optimizer, _ = prepare(dataset)
        method.model.double()
        method.progress = 0.6
        indices = torch.arange(0, len(dataset.train), 20)
        inputs = dataset.train.inputs[indices].double()
        observed, clean = labels.observed[indices], labels.clean[indices]
        optimizer.zero_grad()
        method.backward(inputs, observed)
        return method, inputs, observed, clean

    def test_against_gradients_of_each_part(self, step):
        method, inputs, observed, clean = step
        values = perturbation_alignment(method, inputs, observed, clean)
        model = method.model

        def flat_gradient(mask, targets):
            loss = loss_fn(model(inputs[mask]), targets[mask])
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

        everything = torch.ones_like(clean, dtype=torch.bool)
        wrong = observed != clean
        g, g_true = flat_gradient(everything, observed), flat_gradient(everything, clean)
        g_noise, g_clean = flat_gradient(wrong, observed), flat_gradient(~wrong, observed)
        compensation = method.ascent.compensation
        g_star = torch.cat([t.flatten() for t in compensation.gradient])

        def cosine(a, b):
            return (a @ b / (a.norm() * b.norm())).item()

        s = abs(compensation.scale)
        sam = method.rho * g / g.norm()
        assert values["cos_sam_clean"] == pytest.approx(cosine(g, g_true))
        assert values["cos_compensated_sam_clean"] == values["cos_sam_clean"]
        assert values["cos_plus_clean"] == pytest.approx(cosine(sam + s * g_star, g_true))
        assert values["cos_minus_clean"] == pytest.approx(cosine(sam - s * g_star, g_true))
        assert values["cos_gstar_noise"] == pytest.approx(cosine(g_star, g_noise))
        assert values["cos_clean_noise"] == pytest.approx(cosine(g_clean, g_noise))
        assert values["compensation_ratio"] == pytest.approx(s * g_star.norm().item() / method.rho)
        drawn = compensation.drawn
        assert values["draw_precision"] == pytest.approx(wrong[drawn].double().mean().item())
        right = compensation.temporary_targets == clean[drawn]
        assert values["temporary_label_precision"] == pytest.approx(right.double().mean().item())

    def test_gradients_and_weights_are_left_alone(self, step):
        method, inputs, observed, clean = step
        before = [p.grad.clone() for p in method.model.parameters()]
        perturbation_alignment(method, inputs, observed, clean)
        assert all(torch.equal(p.grad, g) for p, g in zip(method.model.parameters(), before, strict=True))

    def test_without_wrong_labels_sams_perturbation_is_the_clean_one(self, step):
        method, inputs, observed, _ = step
        values = perturbation_alignment(method, inputs, observed, observed)
        assert values["cos_sam_clean"] == pytest.approx(1)
        assert math.isnan(values["cos_gstar_noise"])

    @pytest.mark.parametrize(("kind", "model"), [("ncsam", "mlp"), ("ncsam", "cnn"), ("dropout", "mlp")])
    def test_recording_it_does_not_change_the_training(self, digits, kind, model):
        _, with_it = train(digits, kind, model=model, epochs=3, alignment_batches=3)
        _, without = train(digits, kind, model=model, epochs=3)
        states = zip(with_it.model.state_dict().values(), without.model.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in states)


def hidden_weights(outputs, targets):
    """A loss of a user that does not say that it weighs the classes."""
    return nn.functional.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 5.0, 20.0]).double())


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]).double()),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]).double(), reduction="sum"),
        hidden_weights,
    ],
)
def test_sams_direction_is_the_losss_own_whatever_it_divides_by(loss):
    torch.manual_seed(0)
    inputs, clean = torch.randn(64, 6).double(), torch.randint(3, (64,))
    observed = clean.clone()
    observed[:25] = (clean[:25] + 1) % 3
    model = nn.Linear(6, 3).double()
    method = SAM(model, loss, rho=0.1)
    method.backward(inputs, observed)
    found = perturbation_alignment(method, inputs, observed, clean)["cos_sam_clean"]
    by_observed, by_clean = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(inputs), labels), model.parameters())])
        for labels in (observed, clean)
    )
    assert found == pytest.approx(nn.functional.cosine_similarity(by_observed, by_clean, 0).item())
