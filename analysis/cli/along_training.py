"""The surface along the user's training: `ncsam measure LAST --along FIRST ... --model module:function --data ...`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rich.console import Console

import figures
from analysis.cli.checkpoint import Measurement
from analysis.printable import printable
from analysis.store import write_text
from landscape import filter_normalized_directions, save, surface


def draw_along_training(checkpoints: list[Path], asked: Measurement, console: Console) -> None:
    """Stores the surface around each checkpoint, and draws them as a GIF and, with plotly, as a page with a slider.

    The same random directions are taken for all, each scaled to the filters of its checkpoint.

    Args:
        checkpoints: of one training, in order; the last one names the files.
        asked: model, data and settings.
        console: where the names of the files are printed.

    Raises:
        FileNotFoundError, ValueError: an option is wrong; the message names it.
    """
    frames = []
    target = asked.results_of(checkpoints[-1])
    for number, checkpoint in enumerate(checkpoints):
        with console.status(f"measuring {printable(checkpoint.name)}"):
            objective = asked.objective(checkpoint)
            directions = filter_normalized_directions(objective, 2, seed=asked.seed)
            plane = surface(objective, directions, steps=asked.steps)
        save(target, f"along/{number:04d}", plane)
        frames.append((checkpoint.name, plane))
    loss_name, about = "mean loss", f"{asked.model} along its training."
    picture = target.with_suffix(".gif")
    figures.Animation(frames, loss_name=loss_name, about=about).save(picture)
    written = [picture]
    if importlib.util.find_spec("plotly"):
        page = figures.interactive(frames, loss_name=loss_name, about=about, slider=True)
        written.append(target.with_suffix(".html"))
        write_text(written[-1], page)
    console.print(
        printable(f"along the training: {', '.join(map(str, written))}"),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
