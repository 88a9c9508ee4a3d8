"""The surface along the user's training: `ncsam measure LAST --along FIRST ... --model module:function --data ...`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rich.console import Console

import figures
from analysis.cli.checkpoint import ALONG, Measurement
from analysis.printable import printable, say
from analysis.store import write_text
from landscape import filter_normalized_directions, save, surface
from landscape.results.storage import changed


def draw_along_training(checkpoints: list[Path], asked: Measurement, console: Console) -> None:
    """Stores the surface around each checkpoint, and draws them as a GIF and, with plotly, as a page with a slider.

    The same random directions are taken for all, each scaled to the filters of its checkpoint. Surfaces of an earlier
    call are removed.

    Args:
        checkpoints: of one training, in order; the last one names the files.
        asked: model, data and settings.
        console: where the names of the files are printed.

    Raises:
        FileNotFoundError, ValueError: an option is wrong; the message names it.
    """
    frames = []
    for checkpoint in checkpoints:
        with console.status(f"measuring {printable(checkpoint.name)}"):
            objective = asked.objective(checkpoint)
            directions = filter_normalized_directions(objective, 2, seed=asked.seed)
            frames.append((checkpoint.name, surface(objective, directions, steps=asked.steps)))
    target = asked.results_of(checkpoints[-1])
    with changed(target) as file:
        if ALONG in file:
            del file[ALONG]
        for number, (name, plane) in enumerate(frames):
            save(file, f"{ALONG}/{number:04d}", plane)
            # the name of a file need not be UTF-8
            file[f"{ALONG}/{number:04d}"].attrs["checkpoint"] = printable(name)
    loss_name, about = "mean loss", f"{asked.model} along its training."
    picture = target.with_suffix(".gif")
    figures.Animation(frames, loss_name=loss_name, about=about).save(picture)
    written = [picture]
    if importlib.util.find_spec("plotly"):
        page = figures.interactive(frames, loss_name=loss_name, about=about, slider=True)
        written.append(target.with_suffix(".html"))
        write_text(written[-1], page)
    say(console, f"along the training: {', '.join(map(str, written))}")
