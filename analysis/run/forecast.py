"""A forecast of the time of a run's training, from a step or two, before any run has finished."""

from __future__ import annotations

import time

import torch

from analysis.plan import Run
from analysis.run.context import RunContext
from analysis.run.run_data import RunData, load_run_data
from analysis.run.training import Training, new_model
from ncsam import Method, predict
from ncsam.methods.training_set import TrainingSet

FIRST_SAMPLES = 32
LONG = 0.5
"""Seconds. If the first few samples take as long, the whole batch is not tried; its time is scaled up from them."""
FORWARD_ALONE = 1 / 3
"""Cost of evaluating a sample, relative to that of its gradient."""


def seconds_of_training(run: Run, context: RunContext) -> float:
    """Times a step of the run's method after its warm-up. Evaluation counts as the share of forward passes in a step.

    Args:
        run: the run.
        context: context of the run. Nothing is written into its folder.

    Raises:
        FileNotFoundError, ValueError: as for `load_dataset`.
    """
    data, settings = load_run_data(run.config, context), run.config.training
    method = _method(run, data)
    gradients = _gradients_of_a_step(method, data)
    samples = min(FIRST_SAMPLES, settings.batch_size, len(data.train))
    seconds = _seconds_of_a_step(method, data, samples)
    if seconds < LONG:
        samples = min(settings.batch_size, len(data.train))
        seconds = _seconds_of_a_step(method, data, samples)
    evaluated = FORWARD_ALONE * (len(data.train) + len(data.held_out))
    return settings.epochs * (len(data.train) + evaluated / gradients) * seconds / samples


def _method(run: Run, data: RunData) -> Method:
    model = new_model(run.config, data, "weights")
    training = Training(run.config, data, fingerprint="")
    method = training.method(model, data.labels.transition, run.config.method.candidates[0])
    # the step is one after the warm-up, which costs less
    method.progress, method.epoch_share = 1.0, 1 / run.config.training.epochs
    method.before_epoch(
        TrainingSet(
            data.labels.observed,
            lambda network: predict(network, data.train),
            run.config.training.batch_size,
            seed=0,
        )
    )
    return method


def _gradients_of_a_step(method: Method, data: RunData) -> float:
    before = method.gradient_count
    _step(method, data, min(8, len(data.train)))
    # a method may leave all of these samples out
    return max(method.gradient_count - before, FORWARD_ALONE)


def _seconds_of_a_step(method: Method, data: RunData, samples: int) -> float:
    """The seconds of the second of two steps. The first one allocates memory and chooses kernels."""
    _step(method, data, samples)
    start = time.perf_counter()
    _step(method, data, samples)
    return time.perf_counter() - start


def _step(method: Method, data: RunData, samples: int) -> None:
    indices = torch.arange(samples, device=data.train.pixels.device)
    loss = method.backward(data.train.batch(indices), data.labels.observed[indices], indices)
    # reading a number waits for the device
    loss.item()
