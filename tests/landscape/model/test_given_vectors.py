"""Vectors in every form in which callers have them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, given_direction, line, top_eigenvalues

N = 18
DATA = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def objective():
    torch.manual_seed(0)
    return Objective(nn.Linear(5, 3), nn.CrossEntropyLoss(), DATA)


VECTOR = np.arange(N, dtype=np.float32) / N
FORMS = {
    "backward strides": VECTOR[::-1].copy()[::-1],
    "another byte order": VECTOR.astype(">f4"),
    "longer than float64": VECTOR.astype(np.longdouble),
    "half precision": VECTOR.astype(np.float16).astype(np.float32),
    "numbers": VECTOR.tolist(),
    "sparse": torch.from_numpy(VECTOR).to_sparse(),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_of_numpy_and_torch_in_any_layout_are_taken(form):
    measured, expected = objective(), torch.as_tensor(VECTOR)
    rtol = 1e-3 if form == "half precision" else 1e-6
    torch.testing.assert_close(measured.value(FORMS[form]), measured.value(expected), rtol=rtol, atol=0)
    torch.testing.assert_close(measured.hvp(FORMS[form]), measured.hvp(expected), rtol=rtol, atol=1e-3)
    found, right = (line(measured, each, steps=3).loss for each in (FORMS[form], expected))
    np.testing.assert_allclose(found, right, rtol=rtol)
    if form not in ("numbers", "sparse"):
        torch.testing.assert_close(measured.flatten(FORMS[form]), expected, rtol=rtol, atol=1e-3)


COMPLEX = torch.ones(N) * 1j
NO_VECTORS = {
    "complex direction": (
        lambda o: line(o, COMPLEX, steps=3),
        ValueError,
        "direction: must hold real numbers",
    ),
    "complex array": (lambda o: given_direction(o, COMPLEX.numpy()), ValueError, "weights: must hold real"),
    "complex tensors": (
        lambda o: o.flatten([COMPLEX[:15].view(3, 5), COMPLEX[:3]]),
        ValueError,
        "weights: must hold",
    ),
    "complex product": (lambda o: o.hvp(COMPLEX), ValueError, "vectors: must hold real numbers"),
    "complex weights": (lambda o: o.value(COMPLEX), ValueError, "theta: must hold real numbers"),
    "model as direction": (lambda o: line(o, nn.Linear(5, 3)), TypeError, "direction: must be one vector"),
    "state dict as weights": (
        lambda o: o.value(nn.Linear(5, 3).state_dict()),
        TypeError,
        "theta: .*objective.flatten",
    ),
    "parameters in a product": (
        lambda o: o.hvp(nn.Linear(5, 3).parameters()),
        TypeError,
        "vectors: must be one",
    ),
}


@pytest.mark.parametrize("case", NO_VECTORS)
def test_what_is_no_real_vector_is_refused_with_the_remedy(case):
    measure, kind, says = NO_VECTORS[case]
    with pytest.raises(kind, match=f"^{says}"):
        measure(objective())


@pytest.mark.parametrize("is_same", [lambda o: pickle.loads(pickle.dumps(o)), copy.deepcopy])
def test_a_pickled_or_copied_objective_measures_the_same(is_same):
    measured = objective()
    values = top_eigenvalues(measured).values
    again = is_same(measured)
    assert again.value() == measured.value()
    np.testing.assert_allclose(top_eigenvalues(again).values, values, rtol=1e-5)


def test_numpy_weights_of_no_dimension_are_taken():
    class Scaled(nn.Linear):
        def __init__(self):
            super().__init__(5, 3)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, inputs):
            return self.scale * super().forward(inputs)

    measured = Objective(Scaled(), nn.CrossEntropyLoss(), DATA)
    own = {name: tensor.numpy() for name, tensor in measured.unflatten(measured.theta).items()}
    assert torch.equal(measured.flatten(own), measured.theta)
