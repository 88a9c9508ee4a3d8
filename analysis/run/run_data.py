"""The data and labels of one run, on the device where it trains and is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from analysis.plan.data import data_digest, load_data, observed_labels
from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from analysis.run.context import RunContext
from ncsam import Dataset, NoisyLabels, Split


@dataclass(frozen=True)
class RunData:
    """The data of a run's training and measurements.

    Attributes:
        dataset: the whole data set.
        train: the training samples.
        labels: true and observed labels of the training samples.
        held_out: the test samples. For a trial, held-out training samples with their observed labels.
        digest: SHA-256 of the data set and its files of labels.
        device: device of the samples.
    """

    dataset: Dataset
    train: Split
    labels: NoisyLabels
    held_out: Split
    digest: str
    device: str


def load_run_data(config: RunConfig, context: RunContext) -> RunData:
    """Loads the data of a run and draws its wrong labels.

    Args:
        config: configuration of the run.
        context: context of the run, with the folder of data files and their expected digest.

    Raises:
        FileNotFoundError, ValueError: as for `load_dataset` and `observed_labels`; or the data have another digest than
            expected.
    """
    data_dir, device = context.data_dir, context.device
    dataset = load_data(config, data_dir)
    labels = observed_labels(config, dataset, data_dir)
    digest = data_digest(config, dataset, data_dir)
    if context.expected_data not in ("", digest):
        # another machine may have other files, and a worker may still hold data from before the files changed
        raise ValueError(
            "--data-dir: this worker has other data than the study; give it the same, start it anew"
        )
    train, held_out = dataset.train, dataset.test
    if config.purpose == "selection":
        # candidates are compared on held-out training samples with their observed labels, never on test data
        train, labels, held_out = _validation_split(
            train, labels, config.selection.validation_fraction, derived_seed(config, "validation")
        )
    return RunData(dataset, train.to(device), labels.to(device), held_out.to(device), digest, device)


def _validation_split(
    train: Split, labels: NoisyLabels, fraction: float, seed: int
) -> tuple[Split, NoisyLabels, Split]:
    count = max(1, round(fraction * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed), device="cpu")
    kept, held = order[count:].sort().values, order[:count].sort().values
    held_out = replace(train.take(held), targets=labels.observed[held])
    return train.take(kept), labels.take(kept), held_out
