"""Whether a product is traced follows from counts: what tracing costs, and what the products to come save."""

import pytest
import torch
from torch import nn

from landscape.matrices.worth_tracing import Work, pays
from ncsam import build_model

WORK = Work(flops=1e10, operations=30)
"""Tracing takes as long as three products of a chunk."""


@pytest.mark.parametrize(
    ("fewest", "others"),
    [
        # tracing and its checks cost 5 products of a chunk, and a quarter of each direct one is saved
        (20, {}),
        # each product is one of 5 chunks; the checks look at one of them
        (4, {"chunks": 5}),
        # each shape is traced by itself
        (32, {"forms": 2}),
        # an accelerator computes a hundred times as much while an operation is traced
        (1208, {"device": "cuda"}),
        (20, {"device": "mps"}),
    ],
)
def test_so_many_announced_products_repay_tracing(fewest, others):
    case = {"chunks": 1, "forms": 1, "device": "cpu"} | others
    assert [pays(WORK, announced, 1, **case) for announced in (fewest - 1, fewest)] == [False, True]


@pytest.mark.parametrize(
    ("fewest", "others"),
    [(20, {}), (4, {"chunks": 5}), (20, {"forms": 2}), (40, {"forms": 3}), (2000, {"device": "cuda"})],
)
def test_after_so_many_products_others_are_expected_without_a_word(fewest, others):
    case = {"chunks": 1, "forms": 1, "device": "cpu"} | others
    assert [pays(WORK, 0, past, **case) for past in (fewest - 1, fewest)] == [False, True]


def test_work_that_cannot_be_counted_is_never_traced():
    assert not pays(Work(0.0, 30), 10**9, 10**9, chunks=1, forms=1, device="cpu")


def test_the_work_of_a_product_is_counted_in_a_forward_pass():
    layer, inputs = nn.Linear(20, 30), torch.ones(7, 20)
    with torch.no_grad():
        work = Work.of(lambda: layer(inputs).relu())
    # seven forward passes; a transpose, the layer, and its activation
    assert work == Work(7 * 2 * 7 * 20 * 30, 3)


def test_the_few_products_of_one_eigenvalue_do_not_repay_a_trace_of_a_resnet_and_those_of_a_density_do():
    model = build_model("resnet", (1, 28, 28), 10, seed=0, depth=8).eval()
    inputs = torch.zeros(250, 1, 28, 28)
    with torch.no_grad():
        work = Work.of(lambda: model(inputs))
    assert [pays(work, k, 1, chunks=1, forms=1, device="cpu") for k in (5, 30)] == [False, True]
