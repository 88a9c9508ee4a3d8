"""The surface along the user's training: `ncsam measure LAST --along FIRST ... --model module:function --data ...`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rich.console import Console

import figures
from analysis.cli.checkpoint import objective_of
from analysis.printable import printable
from analysis.store import write_text
from landscape import filter_normalized_directions, save, surface


def draw_along_training(
    checkpoints: list[Path],
    model: str,
    data: str,
    console: Console,
    *,
    loss: str | None,
    out: Path | None,
    samples: int,
    steps: int,
    device: str,
    data_dir: Path | None,
) -> None:
    """Stores the surface around each checkpoint, and draws them as a GIF and, with plotly, as a page with a slider.

    The same random directions are taken for all, each scaled to the filters of its checkpoint.

    Args:
        checkpoints: of one training, in order; the last one names the files.
        model, data, console, loss, out, samples, steps, device, data_dir: as for `measure_checkpoint`.

    Raises:
        FileNotFoundError, ValueError: an option is wrong; the message names it.
    """
    frames = []
    target = out or checkpoints[-1].with_name(f"{checkpoints[-1].name}.landscape.h5")
    for number, checkpoint in enumerate(checkpoints):
        with console.status(f"measuring {printable(checkpoint.name)}"):
            objective = objective_of(
                checkpoint, model, data, loss=loss, samples=samples, device=device, data_dir=data_dir
            )
            plane = surface(objective, filter_normalized_directions(objective, 2, seed=0), steps=steps)
        save(target, f"along/{number:04d}", plane)
        frames.append((checkpoint.name, plane))
    loss_name, about = "mean loss", f"{model} along its training."
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
