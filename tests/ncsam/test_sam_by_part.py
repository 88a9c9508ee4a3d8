"""J-SAM and L-SAM against Jacobians that `torch.func` computes, sample by sample."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from ncsam import SAM, JacobianSAM, LogitSAM, Plain
from tests.ncsam.small_network import (
    assert_same,
    batch,
    gradient_at,
    grads,
    loss_fn,
    network,
    shifted,
    weights_of,
)

RHO = 0.3


def filled(method, inputs, targets):
    method.backward(inputs, targets)
    return grads(method.model)


def at_perturbed(model, inputs, targets):
    """The weights at w + rho g / ||g||."""
    weights = weights_of(model)
    found = gradient_at(model, weights, inputs, targets)
    length = torch.cat([g.flatten() for g in found]).norm()
    return shifted(weights, [RHO * g / length for g in found])


def pulled_back(model, jacobian_at, slopes_at, inputs, targets):
    """The mean over samples of J(jacobian_at)^T (p(slopes_at) - onehot)."""
    slopes = functional_call(model, slopes_at, (inputs,)).softmax(1) - nn.functional.one_hot(targets, 4)
    total = [torch.zeros_like(w) for w in jacobian_at.values()]
    for sample, slope in zip(inputs, slopes, strict=True):
        jacobian = jacrev(lambda w, x=sample: functional_call(model, w, (x[None],))[0])(jacobian_at)
        for part, of_weight in zip(total, jacobian.values(), strict=True):
            part += torch.tensordot(slope, of_weight, dims=1) / len(inputs)
    return total


def test_j_sam_moves_the_jacobian_alone():
    model, (inputs, targets) = network(), batch()
    expected = pulled_back(model, at_perturbed(model, inputs, targets), weights_of(model), inputs, targets)
    assert_same(filled(JacobianSAM(model, loss_fn, rho=RHO), inputs, targets), expected)


def test_l_sam_moves_the_losss_gradient_in_the_outputs_alone():
    model, (inputs, targets) = network(), batch()
    expected = pulled_back(model, weights_of(model), at_perturbed(model, inputs, targets), inputs, targets)
    assert_same(filled(LogitSAM(model, loss_fn, rho=RHO), inputs, targets), expected)


@pytest.mark.parametrize(("part", "same_as"), [(JacobianSAM, Plain), (LogitSAM, SAM)])
def test_of_a_linear_model_whose_jacobian_is_constant_one_is_sgd_and_the_other_is_sam(part, same_as):
    inputs, targets = batch()
    models = [network()[:1] for _ in range(2)]
    options = {} if same_as is Plain else {"rho": RHO}
    found = filled(part(models[0], loss_fn, rho=RHO), inputs, targets)
    assert_same(found, filled(same_as(models[1], loss_fn, **options), inputs, targets))


LOSSES = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2, 2.0], dtype=torch.float64)),
    "ignored labels": nn.CrossEntropyLoss(ignore_index=0),
}


@pytest.mark.parametrize("part", [JacobianSAM, LogitSAM])
@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_give_the_gradient_of_the_whole_batch_for_any_loss_of_torch(part, loss):
    found = []
    for size in (None, 5):
        method = part(network(), LOSSES[loss], rho=RHO)
        method.passes.micro_batch_size = size
        found.append(filled(method, *batch()))
    assert_same(*found)


@pytest.mark.parametrize("part", [JacobianSAM, LogitSAM])
def test_a_closure_is_refused_because_it_hides_the_outputs(part):
    model, (inputs, targets) = network(), batch()
    with pytest.raises(ValueError, match="^closure: "):
        part(model, loss_fn, rho=RHO).backward(closure=lambda: loss_fn(model(inputs), targets))


@pytest.mark.parametrize("part", [JacobianSAM, LogitSAM])
def test_outputs_that_are_no_tensor_are_refused(part):
    method = part(
        network(),
        lambda both, targets: loss_fn(both[0], targets),
        rho=RHO,
        forward=lambda model, x: (model(x["x"]), model(x["x"])),
    )
    inputs, targets = batch()
    with pytest.raises(ValueError, match="one tensor"):
        method.backward({"x": inputs}, targets)
