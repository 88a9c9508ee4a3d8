"""The state of a training between two epochs, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ncsam.dynamics import Recorder
from ncsam.methods.method import Method
from ncsam.optimizer_checks import check_that_the_state_fits
from ncsam.seal import is_sealed, seal
from ncsam.whole_file import written_whole


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read."""


def save_checkpoint(
    path: Path,
    fingerprint: str,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    rows: list[dict[str, float]],
    recorder: Recorder | None = None,
) -> None:
    """Writes the state after an epoch, whole or not at all."""
    state: dict[str, Any] = {
        "fingerprint": fingerprint,
        "model": method.model.state_dict(),
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
        "scaler": method.passes.scaler.state_dict() if method.passes.scaler else None,
        "loss": _loss_state(method),
        "rows": rows,
        "samples": recorder.state_dict() if recorder else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as beside:
        _save(state, beside)
        seal(beside)


def _save(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        # torch's own words do not say that the disk is full
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _loss_state(method: Method) -> dict[str, Any]:
    """What a loss remembers, such as ELR's targets."""
    return method.loss_fn.state_dict() if isinstance(method.loss_fn, nn.Module) else {}


def load_checkpoint(
    path: Path,
    fingerprint: str,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    recorder: Recorder | None = None,
) -> list[dict[str, float]]:
    """Loads the state of a checkpoint, and returns the rows of the history so far.

    Raises:
        ValueError: the checkpoint belongs to other settings.
        CheckpointError: the checkpoint cannot be read; nothing was changed yet.
    """
    device = next(method.model.parameters()).device
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
    if state["fingerprint"] != fingerprint:
        raise ValueError(f"checkpoint: {path} belongs to other settings; delete it or name another file")
    if (state["scheduler"] is None) != (scheduler is None):
        raise ValueError(
            f"checkpoint: {path} was written with another scheduler; delete it or name another file"
        )
    if recorder is not None:
        _load_samples(path, state.get("samples"), recorder)
    check_that_the_state_fits(state["optimizer"], optimizer, path)
    method.model.load_state_dict(state["model"])
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    if method.passes.scaler is not None and state["scaler"] is not None:
        method.passes.scaler.load_state_dict(state["scaler"])
    if isinstance(method.loss_fn, nn.Module):
        method.loss_fn.load_state_dict(state["loss"])
    rows: list[dict[str, float]] = state["rows"]
    return rows


def _load_samples(path: Path, state: dict[str, Any] | None, recorder: Recorder) -> None:
    if state is None:
        raise ValueError(
            f"checkpoint: {path} was written without record_samples; delete it to train anew, or leave the option out"
        )
    recorder.load_state_dict(state)
