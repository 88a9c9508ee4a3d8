"""The picture of two trainings on one plane in the gallery:

    python bench/trajectories_picture.py

SGD and SAM begin at the same weights. The surface covers both paths.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

import figures
from landscape import Objective, Trajectory, shared_plane, surface
from ncsam import SAM, Plain, build_model, corrupt_labels, load_dataset

PICTURE = Path(__file__).resolve().parents[1] / "figures/gallery/trajectories.png"
EPOCHS = 12
MARGIN = 0.25
"""Share of the paths' extent that the surface reaches beyond them on each side."""
POINTS = 25
"""Points of the surface along each axis."""

DATA = load_dataset("digits", train_samples=400, test_samples=100)
LABELS = corrupt_labels(DATA.train.targets, rate=0.2, seed=0).observed


def trained(method_name: str) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    """The trained model, and the weights at the beginning and after each epoch."""
    model = build_model("mlp", DATA.input_shape, DATA.num_classes, seed=0, hidden=[16])
    loss_fn = nn.CrossEntropyLoss()
    method = SAM(model, loss_fn, rho=0.2) if method_name == "SAM" else Plain(model, loss_fn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    checkpoints = [copy.deepcopy(model.state_dict())]
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(LABELS), generator=order).split(50):
            optimizer.zero_grad()
            method.backward(DATA.train.inputs[rows], LABELS[rows])
            optimizer.step()
        checkpoints.append(copy.deepcopy(model.state_dict()))
    return model, checkpoints


def covering(paths: Sequence[Trajectory], direction: int) -> np.ndarray:
    """Multiples of a direction that reach beyond all paths and the model itself."""
    reached = np.concatenate([[0.0], *(path.coordinates[:, direction] for path in paths)])
    margin = MARGIN * np.ptp(reached)
    return np.linspace(reached.min() - margin, reached.max() + margin, POINTS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    trainings = {name: trained(name) for name in ("SGD", "SAM")}
    objective = Objective(trainings["SGD"][0], nn.CrossEntropyLoss(), (DATA.train.inputs, LABELS))
    directions, paths = shared_plane(
        objective, {name: checkpoints for name, (_, checkpoints) in trainings.items()}
    )
    alpha, beta = (covering(list(paths.values()), direction) for direction in (0, 1))
    figure = figures.trajectories(
        list(paths.items()),
        surface=surface(objective, directions, alpha=alpha, beta=beta),
        loss_name="training loss",
        about="Digits, 20% wrong labels.",
    )
    figure.savefig(arguments.out, dpi=130)


if __name__ == "__main__":
    main()
