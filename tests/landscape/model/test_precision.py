"""TF32 is off while something is measured, and its settings are put back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from landscape import Objective, filter_normalized_directions, surface
from landscape.model.precision import NEWER, OLDER, full_float32


def settings() -> list[object]:
    """All that torch says of TF32; None where it refuses to say, as older and newer names disagree."""
    found: list[object] = [place.fp32_precision for place in (*NEWER, torch.backends.mkldnn.matmul)]
    for read, _, _ in OLDER:
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if CUDA were in use; torch's settings after the test as at its start."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


ALLOWED: dict[str, Callable[[], None]] = {
    "by default": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "older name": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "newer name": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "convolutions alone": lambda: setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee"),
    "everywhere": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.parametrize("allowed", ALLOWED)
def test_tf32_is_off_within_and_allowed_again_afterward(allowed: str) -> None:
    ALLOWED[allowed]()
    before = settings()
    with full_float32():
        within = [place.fp32_precision for place in NEWER]
    assert "tf32" not in within
    assert settings() == before


def test_whatever_is_measured_is_measured_without_tf32() -> None:
    seen: list[str] = []

    class Spy(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.conv.fp32_precision)
            return super().forward(inputs)

    objective = Objective(Spy(4, 3), nn.CrossEntropyLoss(), (torch.randn(9, 4), torch.arange(9) % 3))
    directions = filter_normalized_directions(objective, 2)
    measurements: list[Callable[[], object]] = [
        objective.evaluate,
        objective.gradient,
        lambda: objective.hvp(objective.theta),
        lambda: objective.ggnvp(objective.theta),
        *(lambda steps=steps: surface(objective, directions, steps=steps) for steps in (2, 5)),
    ]
    for measure, _ in itertools.product(measurements, range(2)):
        seen.clear()
        measure()
        assert seen
        assert "tf32" not in seen
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
