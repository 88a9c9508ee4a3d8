"""The trained networks on which the benchmarks measure curvature and surfaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LOSS = nn.CrossEntropyLoss()

Case = tuple[nn.Module, Tensor, Tensor]
"""A trained model in evaluation mode, inputs, targets."""


def trained(
    name: str,
    options: dict[str, Any],
    samples: int,
    epochs: int,
    device: str = "cpu",
    *,
    seed: int = 0,
    data: str = "mnist-5k",
) -> Case:
    """A model trained on a packaged data set with 40% symmetric label noise, and the samples to measure on."""
    # imported here, because ncsam is not installed in the environment of a peer
    from ncsam import Plain, build_model, corrupt_labels, fit, load_dataset

    dataset = load_dataset(data)
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.4, seed=seed)
    model = build_model(name, dataset.input_shape, dataset.num_classes, seed=seed, **options).to(device)
    train, test = dataset.train.to(device), dataset.test.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(Plain(model, LOSS), optimizer, train, labels, test, epochs=epochs, batch_size=128, seed=seed)
    return model.eval(), train.inputs[:samples], labels.observed[:samples].to(device)
