"""A small random Llama as transformers builds it, with padding: against its dense Hessian, and one step of NCSAM."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import Objective, tasks, top_eigenvalues
from ncsam import NCSAM
from tests.clients.test_transformers import LLAMA, WORDS, D, batch_of, words

transformers = pytest.importorskip("transformers")

RHO, STRENGTH, SHARE = 0.05, 0.02, 0.3
NORMALIZED = 1e-5
"""Relative error that Llama's normalization, which computes in float32, may cause."""


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=WORDS, **LLAMA)
    return transformers.LlamaForCausalLM(config).to(D).eval()


@pytest.fixture(scope="module")
def dense():
    """(theta, gradient, Hessian) by differentiating plain torch twice."""
    model, batch = llama(), batch_of(words)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def loss(*parts):
        scores = functional_call(model, dict(zip(names, parts, strict=True)), (), batch).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        return nn.functional.cross_entropy(scores[labels != -100], labels[labels != -100])

    # only this way of attention can be differentiated twice
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(loss(*parameters), parameters, create_graph=True)
        slope = torch.cat([part.flatten() for part in slopes])
        columns = torch.autograd.grad(
            slope, parameters, torch.eye(len(slope), dtype=D), is_grads_batched=True
        )
    hessian = torch.cat([part.flatten(1) for part in columns], dim=1)
    return torch.cat([p.detach().flatten() for p in parameters]), slope.detach(), hessian


@pytest.mark.parametrize("cut", [2, 9])
@pytest.mark.parametrize("linearize", [False, True])
def test_gradient_product_and_eigenvalue_are_those_of_the_dense_hessian(dense, cut, linearize):
    theta, slope, hessian = dense
    batch = batch_of(words)
    parts = {key: value.split(cut) for key, value in batch.items()}
    batches = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
    objective = Objective(
        llama(), tasks.next_token_loss, batches, linearize=linearize, **tasks.causal_language_model()
    )
    torch.testing.assert_close(objective.theta, theta)
    torch.testing.assert_close(objective.gradient(), slope, rtol=0, atol=NORMALIZED * slope.norm().item())
    vector = torch.randn(theta.shape, dtype=D, generator=torch.Generator().manual_seed(1))
    error = objective.hvp(vector) - hessian @ vector
    assert error.norm() < NORMALIZED * (hessian @ vector).norm()
    top = top_eigenvalues(objective, 1, tol=1e-4, seed=0)
    largest = torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1].item()
    assert top.converged.all()
    assert abs(top.values[0] - largest) < top.errors[0] + NORMALIZED * abs(largest)


def of_tokens(model, inputs):
    """Scores (samples, words, positions) of the next tokens, as cross-entropy takes them."""
    return model(**inputs).logits[:, :-1].movedim(-1, 1)


def test_a_step_of_ncsam_relabels_tokens_that_are_no_padding_and_is_that_of_plain_torch():
    model, batch = llama().train(), batch_of(words)
    labels = batch.pop("labels")[:, 1:].contiguous()
    plain = copy.deepcopy(model)
    method = NCSAM(
        model, nn.CrossEntropyLoss(), rho=RHO, flip_ratio=SHARE, strength=STRENGTH, warmup=0.0,
        schedule="constant", forward=of_tokens,
    )  # fmt: skip
    method.backward(batch, labels)
    noise = method.ascent.compensation
    counted = labels.flatten() != -100
    assert len(noise.drawn) == int(SHARE * counted.sum())
    assert counted[noise.drawn].all()
    assert (noise.temporary_targets != labels.flatten()[noise.drawn]).all()

    def slope(of):
        return torch.autograd.grad(of(of_tokens(plain, batch).movedim(1, -1).flatten(0, 1)), parameters)

    parameters = list(plain.parameters())
    at_w = slope(lambda scores: nn.functional.cross_entropy(scores[counted], labels.flatten()[counted]))
    simulated = slope(
        lambda scores: nn.functional.cross_entropy(scores[noise.drawn], noise.temporary_targets)
    )
    length = torch.sqrt(sum(part.square().sum() for part in at_w))
    shift = [RHO / length * g + STRENGTH * s for g, s in zip(at_w, simulated, strict=True)]
    longer = (torch.sqrt(sum(part.square().sum() for part in shift)) / RHO).clamp(min=1)
    with torch.no_grad():
        for parameter, part in zip(parameters, shift, strict=True):
            parameter.add_(part / longer)
    right = slope(lambda scores: nn.functional.cross_entropy(scores[counted], labels.flatten()[counted]))
    for parameter, expected in zip(model.parameters(), right, strict=True):
        error = parameter.grad - expected
        assert error.norm() <= NORMALIZED * expected.norm()


def test_one_cache_in_all_batches_is_as_empty_in_each_pass_as_it_was_given(dense):
    """A pass adds keys and values to the cache that it gets. It gets a copy."""
    _, slope, hessian = dense
    model, batch = llama(), batch_of(words)
    cache = transformers.DynamicCache(config=model.config)
    batches = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 4), slice(4, None))]
    given = tasks.causal_language_model()

    def forward(model, batch):
        return model(batch["input_ids"], batch["attention_mask"], use_cache=True, cache=batch["cache"]).logits

    data = [{**each, "cache": cache} for each in batches]
    objective = Objective(model, tasks.next_token_loss, data, forward=forward, count=given["count"])
    torch.testing.assert_close(objective.gradient(), slope, rtol=NORMALIZED, atol=1e-7)
    vector = torch.ones(len(slope), dtype=D)
    torch.testing.assert_close(objective.hvp(vector), hessian @ vector, rtol=NORMALIZED, atol=1e-6)
    assert cache.get_seq_length() == 0
