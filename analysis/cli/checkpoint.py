"""The landscape of the user's model: `ncsam measure CHECKPOINT --model module:function --data ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import figures
from analysis.cli.png import write_png
from analysis.printable import printable
from landscape import (
    Objective,
    Surface,
    filter_normalized_directions,
    save,
    surface,
    top_eigenvalues,
    trace,
)
from ncsam import DATASETS, load_dataset
from ncsam.options import nearest

HOLDERS = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which training scripts store the weights in a larger dict."""
PREFIXES = ("_orig_mod.", "module.")
"""Prefixes that `torch.compile` and `DistributedDataParallel` put before each name."""


@dataclass(frozen=True)
class Measurement:
    """What `ncsam measure` measures of a checkpoint, and where the results go.

    Attributes:
        model: `module:function`, without arguments, that returns the model.
        data: a packaged data set, whose test samples are used; an .npz file with `inputs` and `targets`; or
            `module:function`, without arguments, that returns (inputs, targets) or batches of such pairs.
        loss: `module:function`, (outputs, targets) -> mean loss; cross-entropy for None.
        out: file of the results; for None a file beside the checkpoint.
        samples: number of samples, from the first on, that are measured.
        steps: number of points on a side of the surface.
        device: device of the measurement.
        data_dir: folder of the files of a packaged data set.
    """

    model: str
    data: str
    loss: str | None
    out: Path | None
    samples: int
    steps: int
    device: str
    data_dir: Path | None

    def objective(self, checkpoint: Path) -> Objective:
        """The objective of a checkpoint; errors as for `measure_checkpoint`."""
        if self.samples < 1:
            raise ValueError(f"--samples: must be at least 1, got {self.samples}")
        built = _called("--model", self.model)
        if not isinstance(built, nn.Module):
            raise ValueError(f"--model: {self.model} returns {type(built).__name__}, not a torch module")
        _load(checkpoint, built)
        pairs = _data(self.data, self.data_dir, self.samples)
        loss_fn: Any = nn.CrossEntropyLoss() if self.loss is None else _found("--loss", self.loss)
        return Objective(built.to(self.device), loss_fn, pairs)

    def results_of(self, checkpoint: Path) -> Path:
        """The file of the results."""
        return self.out or checkpoint.with_name(f"{checkpoint.name}.landscape.h5")


def measure_checkpoint(checkpoint: Path, asked: Measurement, console: Console) -> None:
    """Prints the top eigenvalues and the trace of the Hessian, stores them with a surface, and draws the surface.

    Args:
        checkpoint: weights as `torch.save` writes them: a state_dict, or a dict that holds one.
        asked: model, data and settings.
        console: where numbers are printed.

    Raises:
        FileNotFoundError, ValueError: an option is wrong; the message names it.
    """
    objective = asked.objective(checkpoint)
    with console.status("measuring"):
        eigen = top_eigenvalues(objective, min(3, objective.n_parameters), seed=0)
        whole = trace(objective, deflate=eigen, seed=0)
        directions = filter_normalized_directions(objective, 2, seed=0)
        plane = surface(objective, directions, steps=asked.steps)
    _print_numbers(console, objective, plane, eigen, whole)
    target = asked.results_of(checkpoint)
    for name, found in (("top_eigenvalues", eigen), ("trace", whole), ("plane", plane)):
        save(target, name, found)
    _say(console, f"results: {target} (landscape.load reads top_eigenvalues, trace, plane)")
    picture = target.with_suffix(".png")
    drawn = figures.relief(
        [(checkpoint.name, plane)], loss_name="mean loss", about=f"{asked.model} with {checkpoint.name}."
    )
    write_png(picture, drawn)
    _say(console, f"picture: {picture}")


def _print_numbers(console: Console, objective: Objective, plane: Surface, eigen: Any, whole: Any) -> None:
    unit = f" {plane.loss_unit}" if plane.loss_unit else ""
    _say(console, f"{objective.n_parameters:,} parameters, {objective.n_samples:,} samples")
    accuracy = "" if np.isnan(plane.center_accuracy) else f", accuracy {100 * plane.center_accuracy:.1f}%"
    _say(console, f"mean loss {plane.center_loss:.4g}{unit}{accuracy}")
    for index, (value, error) in enumerate(zip(eigen.values, eigen.errors, strict=True), start=1):
        doubt = "" if eigen.converged[index - 1] else " (not converged)"
        _say(console, f"eigenvalue {index} of the Hessian: {value:.4g} ± {error:.1g}{doubt}")
    doubt = "" if whole.converged else " (not converged)"
    _say(console, f"trace: {whole.value:.4g}, 95% interval {whole.low:.4g} to {whole.high:.4g}{doubt}")


def _found(option: str, text: str) -> Any:
    """The object that `module:name` or `file.py:name` names. Modules are looked for in the current folder too."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ValueError(f"{option}: must look like module:function, got {text!r}")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise FileNotFoundError(f"{option}: {place} does not exist")
        sys.path.insert(0, str(Path(place).resolve().parent))
        place = Path(place).stem
    elif "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise ValueError(f"{option}: cannot import {place}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        hint = nearest(name, dir(module))
        raise ValueError(f"{option}: {place} has no {name!r}{f'; {hint}' if hint else ''}")
    return getattr(module, name)


def _called(option: str, text: str) -> Any:
    function: Callable[[], Any] = _found(option, text)
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{option}: {text}() fails: {type(error).__name__}: {error}") from error


def _data(text: str, data_dir: Path | None, samples: int) -> Any:
    if text in DATASETS:
        test = load_dataset(text, data_dir).test
        return test.inputs[:samples], test.targets[:samples]
    if text.endswith(".npz"):
        return _of_npz(Path(text), samples)
    if ":" not in text:
        hint = nearest(text, DATASETS)
        raise ValueError(
            f"--data: {text!r} is no packaged data set, no .npz file and no module:function"
            + (f"; {hint}" if hint else "")
        )
    found = _called("--data", text)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor):
        return found[0][:samples], found[1][:samples]
    return list(_first(found, samples))


def _first(batches: Any, samples: int) -> Any:
    """The batches with the first `samples` samples. The last batch is cut."""
    left = samples
    for inputs, targets in islice(batches, samples):
        if left <= 0:
            return
        yield inputs[:left], targets[:left]
        left -= len(inputs)


def _of_npz(path: Path, samples: int) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"--data: {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, targets = (torch.from_numpy(arrays[name][:samples]) for name in ("inputs", "targets"))
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"--data: {path} does not hold the arrays inputs and targets: {error}") from error
    return inputs, targets


def _load(checkpoint: Path, model: nn.Module) -> None:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"checkpoint: {checkpoint} does not exist")
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file may raise anything
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"checkpoint: {checkpoint} is no file of weights that torch.load reads with weights_only=True: {reason}"
        ) from error
    for name in HOLDERS:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"checkpoint: {checkpoint} holds no state_dict; save model.state_dict()")
    weights = {_plain(name): value for name, value in held.items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"checkpoint: {checkpoint} is of another model than --model builds: {text}"
        ) from error


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
