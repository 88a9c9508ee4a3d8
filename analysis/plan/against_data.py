"""Checks of a study against its data, made before any run."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from analysis.plan.choice import method_part
from analysis.plan.data import observed_labels
from analysis.plan.errors import StudyError
from analysis.plan.grid import final_runs
from analysis.plan.study import ModelSettings, Study
from landscape.data.memory import memory_there_is
from landscape.evaluation.batch_norm import keeps_statistics
from ncsam import METHODS, Dataset, build_method, build_model, predict
from ncsam.datasets.finite import check_finite

COPIES_IN_TRAINING = 5
"""Number of vectors as long as the weights that a method with a perturbation keeps."""


def check_against_data(study: Study, dataset: Dataset, data_dir: Path | None) -> None:
    """Checks what only the data can tell: whether the model and the label noise fit the data, and whether all sizes do.

    Args:
        study: a study whose settings fit each other.
        dataset: the study's data set.
        data_dir: folder of the files of labels.

    Raises:
        StudyError: a setting does not fit the data, or the data hold NaN or infinity; the message names the field.
    """
    _check_finite(dataset)
    for settings in architectures(study):
        _check_model(study, settings, dataset)
    fraction = study.selection.validation_fraction
    if not 1 <= round(fraction * len(dataset.train)) < len(dataset.train):
        raise StudyError(
            f"selection.validation_fraction: {fraction} leaves one part of the training set empty"
        )
    trainings = [study.training_of(method) for method in study.methods]
    if any(each.crop or each.flip or each.cutout for each in trainings) and len(dataset.input_shape) != 3:
        raise StudyError(
            f"training.crop, flip, cutout: need images (channels, height, width), not shape {dataset.input_shape}"
        )
    _check_methods(study, dataset)
    for config in {run.config.noise.rate: run.config for run in final_runs(study)}.values():
        try:
            labels = observed_labels(config, dataset, data_dir)
            if study.noise.redraw == "step":
                # human labels have no model from which labels could be drawn
                labels.redrawn(torch.zeros(1, dtype=torch.int64, device="cpu"), torch.Generator())
        except (ValueError, TypeError, OSError) as error:
            text = str(error)
            raise StudyError(text if text.startswith("noise.") else f"noise.{text}") from error


def _check_finite(dataset: Dataset) -> None:
    try:
        check_finite("dataset: x_train", dataset.train.pixels, dataset.train_indices)
        check_finite("dataset: x_test", dataset.test.pixels)
    except ValueError as error:
        raise StudyError(str(error)) from error


def architectures(study: Study) -> list[ModelSettings]:
    """The architectures that a study trains, without repetitions."""
    found = {repr(settings): settings for settings in map(study.model_of, study.methods)}
    return list(found.values())


def _check_model(study: Study, settings: ModelSettings, dataset: Dataset) -> None:
    """Raises StudyError for an architecture that does not fit the data, the memory or what is measured."""
    try:
        _check_memory(study, settings, dataset)
        model = build_model(
            settings.name, dataset.input_shape, dataset.num_classes, seed=0, **settings.options
        )
    except StudyError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise StudyError(f"model.{error}") from error
    try:
        predict(model, dataset.test.take(torch.arange(min(2, len(dataset.test)), device="cpu")))
    except RuntimeError as error:
        raise StudyError(f"model: does not take images of shape {dataset.input_shape}: {error}") from error
    count = sum(parameter.numel() for parameter in model.parameters())
    if study.measure.eigenvalues >= count:
        raise StudyError(
            f"measure.eigenvalues: {study.measure.eigenvalues} of a model with {count} parameters; ask for fewer than "
            "there are"
        )
    recalibrates = study.measure.surface_rates and study.measure.surface_batch_norm == "recalibrate"
    if recalibrates and not any(map(keeps_statistics, model.modules())):
        raise StudyError(
            f"measure.surface_batch_norm: 'recalibrate' needs BatchNorm, and {settings.name!r} has none; take 'eval'"
        )


def _check_methods(study: Study, dataset: Dataset) -> None:
    """Raises StudyError for a method that cannot be trained on these inputs or with its model."""
    pixels = dataset.train.pixels.dtype
    are_tokens = not pixels.is_floating_point and pixels != torch.uint8
    for place, method in enumerate(study.methods):
        if are_tokens and method.mixup is not None:
            raise StudyError(f"methods[{place}].mixup: tokens cannot be mixed; leave it out")
        if are_tokens and METHODS[method.name].requires.mixable_inputs:
            raise StudyError(
                f"methods[{place}].name: {method.name!r} mixes inputs, and tokens cannot be mixed; leave it out"
            )
        settings = study.model_of(method)
        model = build_model(
            settings.name, dataset.input_shape, dataset.num_classes, seed=0, **settings.options
        )
        try:
            build_method(
                method.name,
                model,
                nn.CrossEntropyLoss(),
                seed=0,
                clean_targets=dataset.train.targets,
                peer=copy.deepcopy(model),
                **method_part(study.candidates(method)[0]),
            )
        except ValueError as error:
            raise StudyError(f"methods[{place}]: {error}") from error


@dataclass(frozen=True)
class Memory:
    """The memory of one run without its activations, as far as it is known in advance.

    Attributes:
        parameters: number of parameters of the model.
        bytes: bytes of the data, and of all vectors as long as the weights.
    """

    parameters: int
    bytes: int


def memory_of_a_run(study: Study, dataset: Dataset) -> Memory:
    """Forecasts the memory of training and measuring the study's largest network."""
    return max(
        (_memory_of(study, settings, dataset) for settings in architectures(study)),
        key=lambda memory: memory.bytes,
    )


def _memory_of(study: Study, settings: ModelSettings, dataset: Dataset) -> Memory:
    # a model with shapes but no numbers
    with torch.device("meta"):
        model = build_model(
            settings.name, dataset.input_shape, dataset.num_classes, seed=0, **settings.options
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    data = sum(split.pixels.numel() * split.pixels.element_size() for split in (dataset.train, dataset.test))
    # weights, gradient, momentum, perturbation and a second gradient; each measured eigenvalue takes about four vectors
    return Memory(count, data + 4 * count * (COPIES_IN_TRAINING + 4 * study.measure.eigenvalues))


def _check_memory(study: Study, settings: ModelSettings, dataset: Dataset) -> None:
    needed = _memory_of(study, settings, dataset)
    available = memory_there_is()
    if needed.bytes > available:
        raise StudyError(
            f"model: {settings.name!r} has {needed.parameters:,} parameters; training and measuring it needs about "
            f"{needed.bytes / 2**30:,.0f} GiB of memory, and there are {available / 2**30:.0f}: choose a smaller model "
            "or fewer measure.eigenvalues"
        )
