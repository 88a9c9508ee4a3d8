"""The device of these tests, and where the host waited for it.

`NCSAM_TEST_DEVICE=cpu python -m pytest tests/cuda` shows that the tests themselves work.
"""

import copy
import os
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from landscape import Objective
from tests import conftest

DEVICE = torch.device(os.environ.get("NCSAM_TEST_DEVICE", "cuda:0"))

IS_CUDA = DEVICE.type == "cuda"

NEEDS_DEVICE = pytest.mark.skipif(IS_CUDA and not torch.cuda.is_available(), reason="needs a GPU")

cross_entropy = nn.CrossEntropyLoss()


def on_device(case, data_on=DEVICE, **options):
    model, inputs, targets = case
    model = copy.deepcopy(model).to(DEVICE)
    return Objective(model, cross_entropy, (inputs.to(data_on), targets.to(data_on)), **options)


def some_vectors(n, k=3):
    return conftest.some_vectors(n, k).to(DEVICE)


def assert_close(found, expected, **tolerances):
    torch.testing.assert_close(found.cpu(), expected.cpu(), **tolerances)


@contextmanager
def synchronizations():
    """Where the host waited for the GPU within; none on the CPU."""
    found = []
    if IS_CUDA:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
    finally:
        if IS_CUDA:
            torch.cuda.set_sync_debug_mode("default")
