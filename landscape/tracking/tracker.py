"""Tracker: looks at the landscape while a training runs, for a share of its time."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from landscape.data.changed_data import ChangedDataError
from landscape.loss.moved import moved
from landscape.loss.objective import Objective
from landscape.loss.wrapped import check_whole_vectors
from landscape.model.copies import unwrapped
from landscape.results.storage import save
from landscape.tracking.cost import SHARED, Clock, Cost, seconds
from landscape.tracking.measures import Kept, Look, Measure, Update, measure_named
from landscape.tracking.track import Track

Log = Callable[[dict[str, float]], None]
"""A function that gets the metrics of one look by `metric/objective`, with `step`, `epoch` and `tracking_share`."""

STANDARD = ("loss", "top_eigenvalues", "critical_sharpness", "movement")


@dataclass(frozen=True)
class _Row:
    step: int
    epoch: int
    training_seconds: float
    measuring_seconds: float
    values: dict[tuple[str, str], float]


class Tracker:
    """Measures the landscape at the current weights of a training, and does not change the training.

    ::

        tracker = Tracker({"observed": objective}, every=100, measures=["loss", "top_eigenvalues"], at_most=0.1)
        for inputs, targets in loader:
            ...
            optimizer.step()
            tracker.step(model, optimizer)
        tracker.track().of("top_eigenvalue")

    `end_epoch(model)` stands at the end of each epoch. Instead of `step`, `attach(model, optimizer)` has the optimizer
    call the tracker. Lightning takes `landscape.tracking.lightning.LightningTracker(tracker)` as a callback,
    Hugging Face's Trainer `landscape.tracking.transformers.TransformersTracker(tracker)`, and `ncsam.fit`
    `on_epoch=tracker.on_epoch`.

    In a distributed training the first process looks, and the others wait for it at their next exchange.

    An objective whose data change during the training, such as labels that are replaced in place, is measured until
    then: a warning says so, and its numbers are NaN from then on. The training goes on.

    Args:
        objectives: one objective, or several by name. They may be made of the model at any weights. Distances are
            measured from the weights that the model has at `attach` or `begin`, or else from those of the objectives.
        every: `"epoch"`, or the number of the optimizer's steps from one look to the next.
        measures: names (`landscape.tracking.measures.BY_NAME`, `"layer_traces"`), or measures with other options than
            their defaults, such as `tracking.measures.top_eigenvalues(k=3)`.
        at_most: seconds of measuring for each second of training. Each measure has an equal part, and what is left
            unused goes to the measure that has waited longest. At a due look, a measure is taken if this covers the
            expected time: that of its last look, or before the first look a forecast from one timed gradient. None
            takes every measure at every due look; the looks of a run are then reproducible.
        log: a function that is called after each look, or several. `landscape.tracking.logs` makes those of
            TensorBoard, W&B and MLflow.
        file: an HDF5 file that holds the `Track` under the name `"track"`, replaced as a whole after each look. An
            earlier track under this name is replaced when the tracker is made.
        show: writes a line on standard error after each look.
        seed: seed of all draws.
        clock: returns the time in seconds.

    Raises:
        ValueError: an argument out of range; an unknown or repeated measure; `at_most` with objectives of several
            processes, because their clocks differ.
    """

    def __init__(
        self,
        objectives: Objective | Mapping[str, Objective],
        *,
        every: Literal["epoch"] | int = "epoch",
        measures: Sequence[str | Measure] = STANDARD,
        at_most: float | None = 0.1,
        log: Log | Sequence[Log] = (),
        file: str | Path | None = None,
        show: bool = False,
        seed: int = 0,
        clock: Clock = seconds,
    ) -> None:
        self.objectives = dict(objectives) if isinstance(objectives, Mapping) else {"training": objectives}
        _check(self.objectives, every, at_most)
        self.every = every
        layers = list(dict.fromkeys(name for each in self.objectives.values() for name in each.names))
        self.measures = [
            measure if isinstance(measure, Measure) else measure_named(measure, layers)
            for measure in measures
        ]
        self._metrics = _metrics_of(self.measures)
        self.cost = Cost(at_most, len(self.measures), clock)
        self.logs = [log] if callable(log) else list(log)
        self.file = None if file is None else Path(file)
        self.show = show
        self.seed = seed
        self.steps = self.epochs = 0
        self._rows: list[_Row] = []
        self._first = {name: objective.theta.clone() for name, objective in self.objectives.items()}
        self._previous: dict[tuple[str, str], Tensor] = {}
        self._kept: dict[tuple[str, str], Kept] = {}
        # the weights before the last step, and those after it, which are also those before the next step
        self._before: dict[str, Tensor] = {}
        self._after: dict[str, Tensor] = {}
        self._learning_rate = 1.0
        self._gradient_seconds: float | None = None
        self._changed: set[str] = set()
        shared = any(objective.process_group is not None for objective in self.objectives.values())
        self._looks = shared or not _is_another_process()
        if self.file is not None and self._looks:
            # the track of an earlier training must not be taken for the track of this one
            save(self.file, "track", self.track())

    def __repr__(self) -> str:
        return f"<Tracker: {len(self._rows)} looks, {self.cost_so_far()}>"

    def cost_so_far(self) -> str:
        """The time of the looks, in words."""
        cost = self.cost
        said = (
            f"{cost.measuring:.3g} s of measuring beside {cost.training:.3g} s of training ({cost.share:.1%})"
        )
        put_off = [f"{name} {count} times" for name, count in cost.put_off.items()]
        return f"{said}; put off for lack of time: {', '.join(put_off)}" if put_off else said

    def begin(self, model: nn.Module) -> None:
        """Makes the model's weights the origin of distances, in place of the objectives' weights. `attach` calls it.

        Raises:
            ValueError: the model lacks a parameter of an objective, or has it in another shape.
        """
        if self._looks:
            self._first = {
                name: objective.flatten(model).clone() for name, objective in self.objectives.items()
            }

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        """Makes the optimizer call the tracker around each of its steps. Returns a handle that ends this."""

        if self.steps == 0:
            self.begin(model)

        def before(*_: Any) -> None:
            self._keep_weights(model, self._before)

        def after(*_: Any) -> None:
            self._count_step(model, optimizer)

        hooks = optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)

        def detach() -> None:
            for hook in hooks:
                hook.remove()

        return detach

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """To be called after each step of the optimizer, and before the step of a learning-rate schedule.

        Args:
            model: the model in training.
            optimizer: its first group has the learning rate. Without it critical learning rates count in updates.
        """
        self._before, self._after = self._after, self._before
        self._count_step(model, optimizer)
        self._keep_weights(model, self._after)

    def end_epoch(self, model: nn.Module) -> None:
        """To be called at the end of each epoch, with the model in training."""
        self.epochs += 1
        if self.every == "epoch":
            self._look(model)

    def on_epoch(self, epoch: int, metrics: Mapping[str, float], model: nn.Module) -> None:  # noqa: ARG002
        """For `ncsam.fit(on_epoch=...)`. After `attach` the last update and its learning rate are known too."""
        self.epochs = epoch - 1
        self.end_epoch(model)

    def track(self) -> Track:
        """The metrics of all looks so far."""
        rows, names, metrics = self._rows, list(self.objectives), list(self._metrics)
        values = np.full((len(rows), len(names), len(metrics)), math.nan)
        measured = np.zeros((len(rows), len(metrics)), dtype=bool)
        for place, row in enumerate(rows):
            for (metric, name), value in row.values.items():
                values[place, names.index(name), metrics.index(metric)] = value
                measured[place, metrics.index(metric)] = True
        return Track(
            step=np.array([row.step for row in rows], dtype=np.int64),
            epoch=np.array([row.epoch for row in rows], dtype=np.int64),
            objective=np.array(names),
            metric=np.array(metrics),
            values=values,
            measured=measured,
            unit=np.array([self._metrics[metric][0] for metric in metrics]),
            meaning=np.array([self._metrics[metric][1] for metric in metrics]),
            training_seconds=np.array([row.training_seconds for row in rows]),
            measuring_seconds=np.array([row.measuring_seconds for row in rows]),
        )

    @torch.no_grad()
    def _keep_weights(self, model: nn.Module, kept: dict[str, Tensor]) -> None:
        """Keeps the weights before a step, if a look may follow the step."""
        may_come = self.every == "epoch" or (self.steps + 1) % self.every == 0
        if not (self._looks and may_come and any(measure.needs_update for measure in self.measures)):
            return
        with self.cost.of(SHARED):
            for name, parameter in unwrapped(model).named_parameters():
                if name in kept:
                    kept[name].copy_(parameter)
                elif parameter.requires_grad:
                    kept[name] = parameter.detach().clone()

    def _count_step(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        self.steps += 1
        self._learning_rate = 1.0 if optimizer is None else _learning_rate_of(optimizer)
        if self.every != "epoch" and self.steps % self.every == 0:
            self._look(model)

    def _look(self, model: nn.Module) -> None:
        """Takes the measures that the allowed time covers."""
        if not self._looks or len(self._changed) == len(self.objectives):
            return
        if self.cost.at_most is not None and self._gradient_seconds is None:
            self._time_a_gradient()
        here = _Here(self.objectives, model, self._before)
        found: dict[tuple[str, str], float] = {}
        by_name = {measure.name: measure for measure in self.measures}
        gradient = self._gradient_seconds or 0.0
        for name in self.cost.in_turn(
            {name: measure.forecast * gradient for name, measure in by_name.items()}
        ):
            with self.cost.of(name), torch.inference_mode(False):
                found |= self._taken(by_name[name], here)
        if found:
            self._note(found)

    def _taken(self, measure: Measure, here: _Here) -> dict[tuple[str, str], float]:
        """The numbers of a measure for each objective; NaN if the weights or the loss are not finite."""
        found: dict[tuple[str, str], float] = {}
        seed = int(np.random.SeedSequence([self.seed, self.steps, self.epochs]).generate_state(1)[0])
        for name in self.objectives:
            values = dict.fromkeys(measure.metrics, math.nan)
            with self._until_data_change(name):
                objective = here.objective(name)
                if here.is_finite(name):
                    update = here.update(name, self._learning_rate) if measure.needs_update else None
                    previous = self._previous.get((measure.name, name), self._first[name])
                    kept = self._kept.setdefault((measure.name, name), Kept())
                    look = Look(objective, name, self._first[name], previous, update, seed, kept)
                    values |= measure.take(look)
                if measure.keeps_weights:
                    self._previous[measure.name, name] = objective.theta
            found |= {(metric, name): value for metric, value in values.items()}
        return found

    def _time_a_gradient(self) -> None:
        with self.cost.of(SHARED):
            began = self.cost.clock()
            for name, objective in self.objectives.items():
                with self._until_data_change(name):
                    objective.value_and_gradient()
            self._gradient_seconds = self.cost.clock() - began

    @contextmanager
    def _until_data_change(self, name: str) -> Iterator[None]:
        """A block that measures an objective. A warning in the place of an error leaves the training as it is."""
        try:
            yield
        except ChangedDataError as error:
            if name not in self._changed:
                self._changed.add(name)
                warnings.warn(
                    f"objectives: {name!r} is measured no longer, its numbers are NaN from step {self.steps} on: "
                    f"{error}; for labels that the training replaces, make the Objective of clones",
                    stacklevel=3,
                )

    def _note(self, found: dict[tuple[str, str], float]) -> None:
        cost = self.cost
        self._rows.append(_Row(self.steps, self.epochs, cost.training, cost.measuring, found))
        if self.file is not None:
            with cost.of(SHARED):
                save(self.file, "track", self.track())
        told = {f"{metric}/{name}": value for (metric, name), value in found.items()}
        for log in self.logs:
            log({"step": self.steps, "epoch": self.epochs, "tracking_share": cost.share, **told})
        if self.show:
            sys.stderr.write(f"look {len(self._rows)} after {self.steps} steps: {self.cost_so_far()}\n")


class _Here:
    """The objectives at the model's weights of one look. Each is made at its first use."""

    def __init__(
        self, objectives: Mapping[str, Objective], model: nn.Module, before: Mapping[str, Tensor]
    ) -> None:
        self._objectives, self._model, self._before = objectives, model, before
        self._now: dict[str, Objective] = {}
        self._finite: dict[str, bool] = {}
        self._updates: dict[str, Update] = {}

    def objective(self, name: str) -> Objective:
        """The objective of this name at the model's weights."""
        if name not in self._now:
            self._now[name] = moved(self._objectives[name], self._model)
        return self._now[name]

    def is_finite(self, name: str) -> bool:
        """Whether the weights and the loss there are finite."""
        if name not in self._finite:
            now = self.objective(name)
            self._finite[name] = bool(now.theta.isfinite().all()) and math.isfinite(now.value())
        return self._finite[name]

    def update(self, name: str, learning_rate: float) -> Update | None:
        """The optimizer's last step; None if the weights before the step are not known."""
        if not self._before:
            return None
        if name not in self._updates:
            before = moved(self._objectives[name], self._model, self._before)
            self._updates[name] = Update(before, self.objective(name).theta - before.theta, learning_rate)
        return self._updates[name]


def _learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The first learning rate above 0; 1 if there is none. Some optimizers choose their learning rate themselves."""
    rates = (group.get("lr") for group in optimizer.param_groups)
    return next((float(rate) for rate in rates if rate is not None and 0 < float(rate) < math.inf), 1.0)


def _check(objectives: Mapping[str, Objective], every: Literal["epoch"] | int, at_most: float | None) -> None:
    if not objectives:
        raise ValueError("objectives: must be one or more")
    for objective in objectives.values():
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objectives: must be an Objective, or several by name, got {type(objective).__name__}; wrap it: "
                "Objective(model, loss_fn, data)"
            )
        check_whole_vectors(objective, "Tracker")
    if every != "epoch" and (isinstance(every, str) or int(every) != every or every < 1):
        raise ValueError(f"every: must be 'epoch' or a number of steps, at least 1, got {every!r}")
    if at_most is not None and not 0 < at_most < math.inf:
        raise ValueError(
            f"at_most: must be a positive share of the training's time, or None, got {at_most!r}"
        )
    if at_most is not None and any(objective.process_group is not None for objective in objectives.values()):
        raise ValueError(
            "at_most: objectives over a process group are measured by all processes together, whose clocks differ; "
            "give at_most=None and choose `every`"
        )


def _metrics_of(measures: Sequence[Measure]) -> dict[str, tuple[str, str]]:
    if not measures:
        raise ValueError("measures: must be one or more")
    metrics: dict[str, tuple[str, str]] = {}
    for measure in measures:
        again = [name for name in measure.metrics if name in metrics]
        if again:
            raise ValueError(f"measures: {again[0]!r} is measured twice; leave out one measure")
        metrics |= measure.metrics
    return metrics


def _is_another_process() -> bool:
    """Whether this is not the first process of a distributed training."""
    return dist.is_available() and dist.is_initialized() and dist.get_rank() != 0
