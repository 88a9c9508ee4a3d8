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
    """What a run trains and is measured on.

    Attributes:
        dataset: where the data come from.
        train: the training samples.
        labels: theirs, true and observed.
        held_out: the test samples; for a trial, training samples that were held out, with their observed labels.
        digest: SHA-256 of the data set and its files of labels.
        device: where the samples are.
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
        config: of the run.
        context: where the data files are, and which digest they must have.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset` and `observed_labels` do; or the data have another digest
            than the study expects.
    """
    data_dir, device = context.data_dir, context.device
    dataset = load_data(config, data_dir)
    labels = observed_labels(config, dataset, data_dir)
    digest = data_digest(config, dataset, data_dir)
    if context.expected_data not in ("", digest):
        # another machine may have other files, and a worker may still hold what it read before they changed
        raise ValueError(
            "--data-dir: this worker has other data than the study; give it the same, start it anew"
        )
    train, held_out = dataset.train, dataset.test
    if config.purpose == "selection":
        # test data take no part: candidates are judged on training samples held out, as they were labeled
        train, labels, held_out = _validation_split(
            train, labels, config.selection.validation_fraction, derived_seed(config, "validation")
        )
    return RunData(dataset, train.to(device), labels.to(device), held_out.to(device), digest, device)


def _validation_split(
    train: Split, labels: NoisyLabels, fraction: float, seed: int
) -> tuple[Split, NoisyLabels, Split]:
    count = max(1, round(fraction * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    kept, held = order[count:].sort().values, order[:count].sort().values
    held_out = replace(train.take(held), targets=labels.observed[held])
    return train.take(kept), labels.take(kept), held_out
