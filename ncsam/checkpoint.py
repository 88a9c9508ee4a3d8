"""The state of a training between two epochs, in a file."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ncsam.dynamics import Recorder
from ncsam.hidden_state import HiddenState
from ncsam.methods.method import Method
from ncsam.optimizer_checks import check_that_the_state_fits
from ncsam.ranks import Ranks
from ncsam.seal import is_sealed, seal
from ncsam.training_settings import Settings, check_same_settings, warn_of_new_weights
from ncsam.whole_file import written_whole


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read."""


@dataclass(frozen=True)
class Trained:
    """The objects of a training whose state a checkpoint holds.

    Attributes:
        method: with its networks and its loss.
        optimizer: of the networks.
        scheduler: of the optimizer.
        recorder: of every training sample.
        hidden: what is in no `state_dict`.
    """

    method: Method
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    recorder: Recorder | None
    hidden: HiddenState


def save_checkpoint(
    path: Path,
    fingerprint: str,
    settings: Settings,
    trained: Trained,
    rows: list[dict[str, float]],
    ranks: Ranks,
) -> None:
    """Writes the state after an epoch on rank 0, whole or not at all.

    The number of epochs that were asked for is kept for a method that follows its progress.

    Raises:
        CheckpointError: a part of the first state could not be read again.
    """
    method, scheduler = trained.method, trained.scheduler
    warn_of_new_weights(settings, method, trained.optimizer)
    if not method.follows_progress:
        settings = {name: value for name, value in settings.items() if name != "epochs"}
    first, *others = ranks.gathered(_state_of_rank(trained, settings))
    state: dict[str, Any] = {
        "fingerprint": fingerprint,
        "model": method.passes.module.state_dict(),
        "optimizer": trained.optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
        "rows": rows,
        "samples": trained.recorder.state_dict() if trained.recorder else None,
        **first,
        "other_ranks": others,
    }
    ranks.on_first(lambda: _write(_without_numpy(state), path, is_first=len(rows) == 1))


def _state_of_rank(trained: Trained, settings: Settings) -> dict[str, Any]:
    """What differs between ranks: settings, random states, and what is remembered of the samples that a rank saw."""
    method = trained.method
    return {
        "settings": settings,
        "method": method.state_dict(),
        "scaler": method.passes.scaler.state_dict() if method.passes.scaler else None,
        "loss": method.loss_fn.state_dict() if isinstance(method.loss_fn, nn.Module) else {},
        "hidden": trained.hidden.state_dict(),
    }


def _without_numpy(value: Any) -> Any:
    """The same with plain numbers and tensors, because NumPy's could be read only by executing code in the file."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        # a copy keeps what torch notes at the state of a module
        plain = copy.copy(value)
        # by key, because the `update` of a Counter, such as milestones are, adds
        for name, part in value.items():
            plain[name] = _without_numpy(part)
        return plain
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy, value))
    return value


def _write(state: dict[str, Any], path: Path, *, is_first: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        _save(state, beside)
        if is_first:
            _check_that_it_can_be_read(state, beside)
        seal(beside)


def _check_that_it_can_be_read(state: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError now, and not after a kill, if only code in the file could make a part of the state."""
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        part = next((name for name, value in state.items() if not _can_be_read(value)), "state")
        raise CheckpointError(
            f"checkpoint: the {part} has a value of a type that a resumed training could not read: "
            f"{str(error).splitlines()[0]}; keep plain numbers and tensors there, or leave checkpoint out"
        ) from error


def _can_be_read(value: Any) -> bool:
    content = io.BytesIO()
    torch.save(value, content)
    content.seek(0)
    try:
        torch.load(content, map_location="meta", weights_only=True)
    except Exception:  # a type that is not allowed may raise anything
        return False
    return True


def _save(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        # torch's own words do not say that the disk is full
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_checkpoint(
    path: Path,
    fingerprint: str,
    settings: Settings,
    trained: Trained,
    ranks: Ranks,
) -> list[dict[str, float]]:
    """Loads the state of a checkpoint, which rank 0 reads, and returns the rows of the history so far.

    Raises:
        ValueError: a checkpoint of other settings, of a longer training, of a model of another form, or of another
            number of ranks. The weights are as before.
        CheckpointError: one that cannot be read; nothing was changed yet.
        RuntimeError: on other ranks, in place of these.
    """
    method, optimizer, scheduler = trained.method, trained.optimizer, trained.scheduler
    device = next(method.model.parameters()).device
    state = ranks.on_first(lambda: _read(path, device))
    with ranks.together():
        _check(state, path, fingerprint, settings["epochs"], scheduler, ranks)
        check_that_the_state_fits(state["optimizer"], optimizer, path)
        of_rank = [state, *state.get("other_ranks", [])][ranks.rank]
        # a checkpoint of an earlier version does not know its settings
        before = of_rank.get("settings", {})
        check_same_settings(path, before, settings, state["optimizer"]["param_groups"], state["scheduler"])
        if trained.recorder is not None:
            _load_samples(path, state.get("samples"), trained.recorder)
        with _untouched_by_failure(method, state["model"], path):
            method.passes.module.load_state_dict(state["model"])
            method.load_state_dict(of_rank["method"])
            if isinstance(method.loss_fn, nn.Module):
                method.loss_fn.load_state_dict(of_rank["loss"])
            # a checkpoint of an earlier version has none
            trained.hidden.load_state_dict(of_rank.get("hidden", {}))
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    if method.passes.scaler is not None and of_rank["scaler"] is not None:
        method.passes.scaler.load_state_dict(of_rank["scaler"])
    rows: list[dict[str, float]] = state["rows"]
    return rows


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():  # a reader would wait at a FIFO for ever
        raise CheckpointError(f"checkpoint: {path} is not a file; name another")
    try:
        # torch does not look at the checksums in its files; checkpoints of earlier versions have no seal
        is_sealed(path)
        state = torch.load(path, map_location=device, weights_only=True)
        whole = state.keys() >= {"fingerprint", "model", "method", "optimizer", "scheduler", "loss", "rows"}
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f"checkpoint: {path} cannot be read; delete it to train anew") from error
    if not whole:
        raise CheckpointError(f"checkpoint: {path} is not one of fit(); delete it to train anew")
    found: dict[str, Any] = state
    return found


def _check(
    state: dict[str, Any],
    path: Path,
    fingerprint: str,
    epochs: int,
    scheduler: LRScheduler | None,
    ranks: Ranks,
) -> None:
    if state["fingerprint"] != fingerprint:
        raise ValueError(f"checkpoint: {path} belongs to other settings; delete it or name another file")
    if (state["scheduler"] is None) != (scheduler is None):
        raise ValueError(
            f"checkpoint: {path} was written with another scheduler; delete it or name another file"
        )
    trained = len(state["rows"])
    if trained > epochs:
        raise ValueError(f"checkpoint: {path} has {trained} epochs already, {epochs} were asked for")
    count = 1 + len(state.get("other_ranks", []))
    if count != ranks.count:
        raise ValueError(
            f"checkpoint: {path} was written by {count} ranks, {ranks.count} are to go on; give as many, or delete it"
        )


@contextmanager
def _untouched_by_failure(method: Method, stored: dict[str, Any], path: Path) -> Iterator[None]:
    """A context in which states are loaded. If one does not fit, all weights and buffers are as before.

    Raises:
        ValueError: a state does not fit.
    """
    modules = method.networks()
    if isinstance(method.loss_fn, nn.Module):
        modules.append(method.loss_fn)
    tensors = {
        id(tensor): tensor for module in modules for tensor in (*module.parameters(), *module.buffers())
    }
    before = [tensor.detach().clone() for tensor in tensors.values()]
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        with torch.no_grad():
            for tensor, value in zip(tensors.values(), before, strict=True):
                tensor.copy_(value)
        cause = (
            _first_difference(stored, method.passes.module.state_dict())
            or str(error).splitlines()[-1].strip()
        )
        raise ValueError(
            f"checkpoint: {path} belongs to a training of other networks or another loss: {cause}; build them as they "
            "were, delete the file to train anew, or name another file"
        ) from error


def _first_difference(stored: dict[str, Any], own: dict[str, Any]) -> str | None:
    """The first tensor of the model that only one of both has, or that has another shape."""
    for name in [*stored, *own]:
        if name not in own or name not in stored:
            return f"{name} is in the {'file' if name in stored else 'model'} alone"
        before, now = stored[name], own[name]
        if isinstance(before, Tensor) and isinstance(now, Tensor) and before.shape != now.shape:
            return f"{name} was of shape {tuple(before.shape)} and is of {tuple(now.shape)}"
    return None


def _load_samples(path: Path, state: dict[str, Any] | None, recorder: Recorder) -> None:
    if state is None:
        raise ValueError(
            f"checkpoint: {path} was written without record_samples; delete it to train anew, or leave the option out"
        )
    recorder.load_state_dict(state)
