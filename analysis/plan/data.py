"""The data and labels of a run, from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.plan.run_config import RunConfig
from analysis.plan.seeds import derived_seed
from ncsam import Dataset, NoisyLabels, corrupt_labels, load_dataset
from ncsam.label_noise import human_labels, noise_options, read_human_labels
from ncsam.label_noise.human import PACKAGED
from ncsam.label_noise.maps import SIMILAR_CLASSES

RATE_TOLERANCE = 0.02
"""Largest allowed difference between the noise rate in a study and the rate of its human labels."""


def load_data(config: RunConfig, data_dir: Path | None) -> Dataset:
    """The data set of a run, or the part of it that the run uses; features in float32, in which networks train.

    Raises:
        FileNotFoundError, ValueError: as for `load_dataset`.
    """
    dataset = load_dataset(
        config.dataset,
        data_dir,
        train_samples=config.train_samples,
        test_samples=config.test_samples,
        image_size=config.image_size,
    )
    if dataset.train.pixels.dtype != torch.float64:
        return dataset
    train, test = (replace(part, pixels=part.pixels.float()) for part in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test)


def data_digest(config: RunConfig, dataset: Dataset, data_dir: Path | None) -> str:
    """SHA-256 of the samples, their labels and the files of labels. Other data give other results."""
    digest = hashlib.sha256()
    for tensor in (
        dataset.train.pixels,
        dataset.train.targets,
        dataset.mean,
        dataset.std,
        dataset.test.pixels,
        dataset.test.targets,
        dataset.observed,
    ):
        if tensor is not None:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    for path in _label_files(config, data_dir):
        # true labels need no file
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def check_label_files(config: RunConfig, data_dir: Path | None) -> None:
    """Raises FileNotFoundError for a file of labels that is missing; `data_digest` would leave it out."""
    for path in _label_files(config, data_dir):
        if not path.is_file():
            raise FileNotFoundError(f"noise: {path} does not exist")


def _label_files(config: RunConfig, data_dir: Path | None) -> list[Path]:
    """The files that the noise names. Labels of a package have none."""
    options = config.noise.options
    sources = [options[key] for key in ("file", "posterior") if options.get(key) is not None]
    return [_below(data_dir, source) for source in sources if source not in PACKAGED]


def study_options(kind: str) -> dict[str, bool]:
    """The keys of a study's `noise` table for a kind of noise, and whether they must be given.

    Options with a value for each sample come from the data set or from a file. `inputs` come from the data set.
    `posterior` names a .npy file with an array (n, classes). For human labels, `file` names a file, and `labels` the
    labels in it if it holds several; without a file, the labels come from the data set.

    Raises:
        ValueError: the kind is unknown.
    """
    keys: dict[str, bool] = {}
    for name, option in noise_options(kind).items():
        if name == "observed":
            keys |= {"file": False, "labels": False}
        elif name != "inputs":
            keys[name] = option.required
    return keys


def observed_labels(config: RunConfig, dataset: Dataset, data_dir: Path | None) -> NoisyLabels:
    """The labels of the training set, true and observed.

    Args:
        config: configuration of the run.
        dataset: data set of the run. Its training samples may be a part of the whole training set.
        data_dir: folder in which relative paths of files are looked up.

    Raises:
        FileNotFoundError, ValueError: as for `corrupt_labels` and `read_human_labels`; or the human labels have another
            rate of wrong labels than the study names.
    """
    kind, rate, options = config.noise.kind, config.noise.rate, dict(config.noise.options)
    clean, seed = dataset.train.targets, derived_seed(config, "labels")
    if rate == 0:
        return corrupt_labels(clean, rate=0, seed=seed, num_classes=dataset.num_classes)
    if kind == "human":
        found = human_labels(
            clean, _annotators_labels(options, dataset, data_dir), num_classes=dataset.num_classes
        )
        if abs(found.realised_rate - rate) > RATE_TOLERANCE:
            raise ValueError(
                f"noise.rates: {found.realised_rate:.1%} of these human labels are wrong; name that rate, not {rate}"
            )
        return found
    if "posterior" in options:
        rows = _posterior(_below(data_dir, options["posterior"]))
        options["posterior"] = _of_samples(rows, dataset, "noise.posterior")
    return planted_labels(dataset, kind, rate, seed, options)


def planted_labels(
    dataset: Dataset, kind: str, rate: float, seed: int, options: Mapping[str, Any]
) -> NoisyLabels:
    """Wrong labels of a kind of noise, with the options that the data tell: their pixels, and whose classes they have.

    Raises:
        ValueError: as for `corrupt_labels`.
    """
    told: dict[str, Any] = {}
    if kind == "asymmetric" and dataset.name in SIMILAR_CLASSES:
        told["classes_of"] = dataset.name
    if "inputs" in noise_options(kind):
        told["inputs"] = dataset.train.pixels
    return corrupt_labels(
        dataset.train.targets,
        kind=kind,
        rate=rate,
        seed=seed,
        num_classes=dataset.num_classes,
        **{**told, **options},
    )


def _annotators_labels(options: dict[str, Any], dataset: Dataset, data_dir: Path | None) -> Tensor:
    """Labels of annotators: those of the file that the study names, or else those of the data set."""
    source = options.get("file")
    if source is not None:
        path = source if source in PACKAGED else _below(data_dir, source)
        return _of_samples(read_human_labels(path, options.get("labels")), dataset, "noise.file")
    if dataset.observed is None:
        raise ValueError(
            f"noise.file: {dataset.name!r} has no annotators' labels beside the true ones; name a file of them"
        )
    return dataset.observed


def _posterior(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except OSError as error:
        raise FileNotFoundError(f"noise.posterior: cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"noise.posterior: {path} is not a .npy file of numbers") from error


def _of_samples(rows: Tensor, dataset: Dataset, field: str) -> Tensor:
    """The rows of a file that belong to the samples of this training set."""
    last = int(dataset.train_indices.max())
    if last >= len(rows):
        raise ValueError(f"{field}: holds {len(rows)} rows, too few for training sample {last}")
    return rows[dataset.train_indices]


def _below(data_dir: Path | None, path: str) -> Path:
    if data_dir is None:
        return Path(path)
    return (data_dir if data_dir.is_dir() else data_dir.parent) / path
