"""The landscape of the user's model: `ncsam measure CHECKPOINT --model module:function --data ...`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import figures
from analysis.cli.drawn_samples import DrawnSamples, drawn_samples
from analysis.cli.png import write_png
from analysis.cli.python_names import called, found
from analysis.printable import printable, say
from landscape import (
    Objective,
    Surface,
    filter_normalized_directions,
    save,
    surface,
    top_eigenvalues,
    trace,
)
from landscape.results.storage import changed, check_place

HOLDERS = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which training scripts store the weights in a larger dict."""
PREFIXES = ("_orig_mod.", "module.")
"""Prefixes that `torch.compile` and `DistributedDataParallel` put before each name."""
MAX_SEED = 2**31 - 1
"""Largest seed."""
OF_PICTURES = (".png", ".gif", ".html")
"""Suffixes of the pictures, which have the name of the results' file but for these."""
ALONG = "along"
"""Group of the surfaces along a training, in the file of its last checkpoint."""


@dataclass(frozen=True)
class Measurement:
    """What `ncsam measure` measures of a checkpoint, and where the results go.

    Attributes:
        model: `module:function`, without arguments, that returns the model.
        data: a packaged data set, whose test samples are used; an .npz file with `inputs` and `targets`; or
            `module:function`, without arguments, that returns (inputs, targets) or batches of such pairs.
        loss: `module:function`, (outputs, targets) -> mean loss; cross-entropy for None.
        out: file of the results; for None a file beside the checkpoint.
        samples: most samples that are measured; of more they are drawn at random.
        seed: seed of the drawn samples, of start vectors, probes and directions.
        steps: number of points on a side of the surface.
        device: device of the measurement.
        data_dir: folder of the files of a packaged data set.
    """

    model: str
    data: str
    loss: str | None
    out: Path | None
    samples: int
    seed: int
    steps: int
    device: str
    data_dir: Path | None

    @cached_property
    def drawn(self) -> DrawnSamples:
        """The measured samples, the same for every checkpoint; errors as for `drawn_samples`."""
        return drawn_samples(self.data, self.data_dir, self.samples, self.seed)

    def objective(self, checkpoint: Path) -> Objective:
        """The objective of a checkpoint; errors as for `measure_checkpoint`."""
        built = self._built()
        load_weights(checkpoint, built)
        data = self.drawn.data
        loss_fn: Any = nn.CrossEntropyLoss() if self.loss is None else found("--loss", self.loss)
        return Objective(built.to(self.device), loss_fn, data)

    def check(self, checkpoint: Path, along: Sequence[Path] = ()) -> None:
        """Finds before the measuring what would fail after it: the place of the results, and the earlier checkpoints.

        Raises:
            FileNotFoundError, ValueError: an option is wrong; the message names it.
        """
        if self.samples < 1:
            raise ValueError(f"--samples: must be at least 1, got {self.samples}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"--seed: must be from 0 to {MAX_SEED}, got {self.seed}")
        if self.steps < 2:
            raise ValueError(f"--steps: must be at least 2, got {self.steps}")
        if not checkpoint.is_file():
            raise FileNotFoundError(f"checkpoint: {checkpoint} does not exist")
        target = self.results_of(checkpoint)
        if target.suffix.lower() in OF_PICTURES:
            raise ValueError(f"--out: {target.name} would hold HDF5; name it {target.stem}.h5")
        try:
            check_place(target)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"--out: {str(error).removeprefix('file: ')}") from error
        for path in along:
            load_weights(path, self._built(), option="--along")

    def _built(self) -> nn.Module:
        built = called("--model", self.model)
        if not isinstance(built, nn.Module):
            raise ValueError(f"--model: {self.model} returns {type(built).__name__}, not a torch module")
        return built

    def write_to(self, file: h5py.File, checkpoint: Path) -> None:
        """Writes into an open file, as its attributes, what was measured. Those of an earlier call are replaced."""
        with checkpoint.open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        about = {
            "checkpoint": printable(checkpoint.name),
            "checkpoint_sha256": digest,
            "model": printable(self.model),
            "data": printable(self.data),
            "loss": printable(self.loss or "cross-entropy"),
            "device": self.device,
            "seed": self.seed,
        }
        file.attrs.update(about)

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
        eigen = top_eigenvalues(objective, min(3, objective.n_parameters), seed=asked.seed)
        whole = trace(objective, deflate=eigen, seed=asked.seed)
        directions = filter_normalized_directions(objective, 2, seed=asked.seed)
        plane = surface(objective, directions, steps=asked.steps)
    say(console, f"{objective.n_parameters:,} parameters, {asked.drawn}")
    _print_numbers(console, plane, eigen, whole)
    target = asked.results_of(checkpoint)
    # in one step, so that the file never holds results of two calls
    with changed(target) as file:
        for name, result in (("top_eigenvalues", eigen), ("trace", whole), ("plane", plane)):
            save(file, name, result)
        asked.drawn.write_to(file)
        asked.write_to(file, checkpoint)
        if ALONG in file:
            del file[ALONG]
    say(console, f"results: {target} (landscape.load reads top_eigenvalues, trace, plane)")
    picture = target.with_suffix(".png")
    drawn = figures.relief(
        [(checkpoint.name, plane)], loss_name="mean loss", about=f"{asked.model} with {checkpoint.name}."
    )
    write_png(picture, drawn)
    say(console, f"picture: {picture}")


def _print_numbers(console: Console, plane: Surface, eigen: Any, whole: Any) -> None:
    unit = f" {plane.loss_unit}" if plane.loss_unit else ""
    accuracy = "" if np.isnan(plane.center_accuracy) else f", accuracy {100 * plane.center_accuracy:.1f}%"
    say(console, f"mean loss {plane.center_loss:.4g}{unit}{accuracy}")
    for index, (value, error) in enumerate(zip(eigen.values, eigen.errors, strict=True), start=1):
        doubt = "" if eigen.converged[index - 1] else " (not converged)"
        say(console, f"eigenvalue {index} of the Hessian: {value:.4g} ± {error:.1g}{doubt}")
    doubt = "" if whole.converged else " (not converged)"
    say(console, f"trace: {whole.value:.4g}, 95% interval {whole.low:.4g} to {whole.high:.4g}{doubt}")


def load_weights(checkpoint: Path, model: nn.Module, *, option: str = "checkpoint") -> None:
    """Loads the weights of a checkpoint.

    Args:
        checkpoint: a file as for `measure_checkpoint`. Names may have the prefixes of wrappers, also several.
        model: the model that takes them.
        option: what errors begin with.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file holds no weights, or those of another model.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{option}: {checkpoint} does not exist")
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file may raise anything
        # torch writes several lines, with codes for bold letters
        reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()[0]
        raise ValueError(
            f"{option}: {checkpoint} is no file of weights that torch.load reads with weights_only=True ({reason}); "
            "of a whole model, which torch.save(model, ...) writes, save the weights: "
            "torch.save(model.state_dict(), ...)"
        ) from error
    for name in HOLDERS:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"{option}: {checkpoint} holds no state_dict; save model.state_dict()")
    try:
        _load_fitting(held, model)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{option}: {checkpoint} is of another model than --model builds: {text}") from error


def _load_fitting(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Loads weights by their names if these fit, and else without a prefix, as often as there is one.

    The names are tried first, because a model may have a part whose name is a prefix.

    Raises:
        RuntimeError: the weights do not fit the model.
    """
    names = model.state_dict().keys()
    while True:
        try:
            model.load_state_dict(weights)
            return
        except RuntimeError:
            shorter = {_without_prefix(name): value for name, value in weights.items()}
            is_shorter = len(shorter) == len(weights) and shorter.keys() != weights.keys()
            if weights.keys() == names or not is_shorter:
                raise
            weights = shorter


def _without_prefix(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
