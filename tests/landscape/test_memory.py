"""How much memory is needed, in copies of the weights, and what is said where there is too little."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from landscape import Objective, sharpness, top_eigenvalues

IN_A_PROCESS_OF_ITS_OWN = """
import json, torch
from torch import nn
from landscape import Objective, filter_normalized_directions, sharpness, top_eigenvalues

def memory(field):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(field)).split()[1]) * 1024

def forget_the_peak():
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")

def objective(model):
    # the budget of 2 GiB is as many times GPT-2 small
    size = sum(parameter.nbytes for parameter in model.parameters())
    data = torch.randn(2, 8), torch.arange(2) % 3
    return Objective(model, nn.CrossEntropyLoss(), data, memory_budget=int(4.3 * size))

def network(layers, width):
    hidden = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)]
    return nn.Sequential(nn.Linear(8, width), *hidden, nn.Linear(width, 3))

torch.set_num_threads(1)
measures = {
    "directions": lambda objective: filter_normalized_directions(objective, 2),
    "gradient": lambda objective: objective.gradient(),
    "eigenvalue": lambda objective: top_eigenvalues(objective, 1, max_products=3),
    "sharpness": lambda objective: sharpness(objective, steps=2, restarts=0),
}
model = network(15, 1024)
size = sum(parameter.nbytes for parameter in model.parameters())
peaks = {}
for name, measure in measures.items():
    measure(objective(network(1, 8)))
    forget_the_peak()
    before = memory("VmRSS")
    measure(objective(model))
    peaks[name] = (memory("VmHWM") - before) / size
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def peaks(pytestconfig):
    """Peak memory beside the caller's model, in model sizes."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN],
        cwd=pytestconfig.rootpath,
        # without this, glibc keeps some freed blocks
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "200000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel keeps no peak to reset"
)
@pytest.mark.parametrize(
    ("what", "most"), [("directions", 4), ("gradient", 4.5), ("eigenvalue", 8), ("sharpness", 6.6)]
)
def test_copies_of_the_weights_that_are_held(what, most, peaks):
    assert peaks[what] <= most


def objective(budget, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3))
    data = torch.randn(40, 6, dtype=dtype), torch.arange(40) % 3
    return Objective(model, nn.CrossEntropyLoss(), data, dtype=dtype, memory_budget=budget)


@pytest.mark.parametrize(
    ("measure", "what", "vectors"),
    [
        (lambda o: top_eigenvalues(o, 1), "top_eigenvalues with k=1", 2),
        (lambda o: top_eigenvalues(o, 4, block=1), "top_eigenvalues with k=4 in blocks of 1", 5),
        (lambda o: sharpness(o, rho=0.05), "a search for the sharpness", 3),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_too_small_a_budget_is_refused_with_what_is_needed_which_is_enough(measure, what, vectors, dtype):
    size = 303 * dtype.itemsize
    needed = (vectors + 1) * size
    with pytest.raises(
        ValueError, match=rf"^memory_budget: {what} needs {vectors} vectors.*memory_budget={needed} or"
    ):
        measure(objective(needed - 1, dtype))
    measure(objective(needed, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [7, 512])
def test_sums_in_the_weights_own_precision_are_those_in_float64_to_rounding(dtype, chunk_size):
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3), nn.Linear(3, 3))
    data = torch.randn(40, 6, dtype=dtype), torch.arange(40) % 3
    settings = {"dtype": dtype, "chunk_size": chunk_size, "regularizer": penalty}
    roomy = Objective(model, nn.CrossEntropyLoss(), data, **settings)
    tight = Objective(model, nn.CrossEntropyLoss(), data, memory_budget=0, **settings)
    rounding = 100 * torch.finfo(dtype).eps
    block = torch.randn(roomy.n_parameters, 3, dtype=dtype)
    for left, right in (
        (tight.gradient(), roomy.gradient()),
        (tight.value_and_gradient()[0], roomy.value_and_gradient()[0]),
        (tight.hvp(block), roomy.hvp(block)),
        (tight.hvp(block[:, 0]), roomy.hvp(block[:, 0])),
    ):
        torch.testing.assert_close(left, right, rtol=0, atol=rounding * right.abs().max().item())
    assert all(parameter.grad is None for parameter in model.parameters())


def penalty(parameters):
    return 1e-2 * sum(parameter.square().sum() for parameter in parameters.values())


def test_few_vectors_find_the_eigenvalue_that_many_find():
    few, many = (top_eigenvalues(objective(budget), 1, tol=1e-4) for budget in (3 * 303 * 4, 2**30))
    assert few.converged.all()
    assert few.values[0] == pytest.approx(many.values[0], abs=few.errors[0] + many.errors[0])


def test_weights_are_held_once():
    measured = objective(2**30)
    first = next(measured.model.parameters())
    assert first.data_ptr() == measured.theta.data_ptr()
