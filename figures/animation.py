"""The surface along a training, as a picture that moves: GIF and MP4."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import image
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from figures.scale import (
    color_bar,
    contours_on,
    grids_say,
    holes,
    kinds_of_directions,
    robust_range,
    round_losses,
    what_levels_say,
    with_unit,
)
from figures.style import (
    ONE_COLUMN,
    PLAIN,
    Style,
    Titled,
    drawing,
    few_ticks,
    finish,
    new_figure,
)
from landscape import Surface, Trajectory
from landscape.results.files import replaced


class Animation:
    """Frames that are drawn one by one, on one scale.

    Args:
        frames: (title, surface) of each moment, such as ("epoch 3", surface).
        loss_name: what the loss is, for the color bar.
        about: which data and model, for the caption.
        trajectory: checkpoints of the training on the surfaces' plane, one a frame: each frame shows the path so far.
        width: of each frame in inches.
        style: how text is written.

    Raises:
        ValueError: no frame, no point with a finite loss, or another number of checkpoints than of frames.
    """

    def __init__(
        self,
        frames: Titled[Surface],
        *,
        loss_name: str,
        about: str,
        trajectory: Trajectory | None = None,
        width: float = ONE_COLUMN,
        style: Style = PLAIN,
    ) -> None:
        if trajectory is not None and (count := len(trajectory.coordinates)) != len(frames):
            raise ValueError(
                f"trajectory: must have a checkpoint for each of {len(frames)} frames, got {count}"
            )
        self.frames = list(frames)
        self._range = robust_range([surface.loss for _, surface in self.frames])
        self._about = {"loss_name": loss_name, "about": about}
        self._trajectory, self._width, self._style = trajectory, width, style

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> Figure:
        """One frame as a figure; all frames have one size."""
        with drawing(self._style, **{"axes.grid": False}):
            figure = new_figure(self._width, 0.82 * self._width + 0.3)
            self._draw(figure, index)
        return figure

    def save(self, path: str | Path, *, seconds_per_frame: float = 0.4) -> Path:
        """Writes a .gif or an .mp4, whole or not at all.

        Args:
            path: its ending says which.
            seconds_per_frame: how long each frame is seen.

        Raises:
            ValueError: another ending, a time that is not positive, or an .mp4 where no ffmpeg is found.
        """
        target = Path(path)
        if not seconds_per_frame > 0:
            raise ValueError(f"seconds_per_frame: must be positive, got {seconds_per_frame}")
        with _with_ffmpeg():
            self._write(target, _writer(target, 1 / seconds_per_frame))
        return target

    def _write(self, target: Path, writer: AbstractMovieWriter) -> None:
        figure = Figure(figsize=tuple(self.frame(0).get_size_inches()), dpi=150)
        canvas = figure.add_axes((0, 0, 1, 1))
        canvas.set_axis_off()
        with replaced(target, suffix=target.suffix) as beside, writer.saving(figure, str(beside), 150):
            for index in range(len(self)):
                drawn = io.BytesIO()
                self.frame(index).savefig(drawn, format="png", dpi=150)
                drawn.seek(0)
                canvas.clear()
                canvas.set_axis_off()
                canvas.imshow(image.imread(drawn), aspect="auto")
                writer.grab_frame()

    def _repr_html_(self) -> str:
        """The animation itself, for notebooks: a GIF in the page."""
        with tempfile.TemporaryDirectory() as folder:
            content = self.save(Path(folder) / "animation.gif").read_bytes()
        return f'<img alt="animation" src="data:image/gif;base64,{base64.b64encode(content).decode()}">'

    def _draw(self, figure: Figure, index: int) -> None:
        (title, surface), (low, high) = self.frames[index], self._range
        surfaces = [each for _, each in self.frames]
        ax = figure.subplots()
        # the same lines in all frames
        contours_on(ax, surface, low, high, round_losses(low, high))
        axes = [np.concatenate([getattr(each, name) for each in surfaces]) for name in ("alpha", "beta")]
        ax.set_xlim(axes[0].min(), axes[0].max())
        ax.set_ylim(axes[1].min(), axes[1].max())
        rim = [withStroke(linewidth=2.4, foreground="k")]
        if self._trajectory is not None:
            path = self._trajectory.coordinates[: index + 1]
            ax.plot(path[:, 0], path[:, 1], "-o", color="w", lw=1, ms=2, path_effects=rim)
        here = (0.0, 0.0) if self._trajectory is None else self._trajectory.coordinates[index, :2]
        ax.plot(
            *here, "+", color="red", ms=8, mew=1.5, path_effects=[withStroke(linewidth=3, foreground="w")]
        )
        ax.set_title(f"{title}\nloss {surface.center_loss:.3g}" if self._trajectory is None else title)
        ax.set_xlabel("α")
        ax.set_ylabel("β")
        for axis in (ax.xaxis, ax.yaxis):
            few_ticks(axis, 4)
        color_bar(figure, [ax], low, high, with_unit(self._about["loss_name"], surfaces))
        kinds = kinds_of_directions(each.direction_kind for each in surfaces)
        finish(
            figure,
            self._style,
            f"{self._about['about']} Red plus: the model at that moment. {grids_say(self.frames, low, high)}"
            f"{what_levels_say(self.frames, high)}{holes(self.frames)}α, β: multiples of two directions ({kinds}).",
        )


def _writer(path: Path, per_second: Any) -> AbstractMovieWriter:
    """What writes files of that ending.

    Raises:
        ValueError: another ending, or no ffmpeg.
    """
    if path.suffix.lower() == ".gif":
        return PillowWriter(per_second)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"path: must end in .gif or .mp4, got {path.name!r}")
    if not FFMpegWriter.isAvailable():
        raise ValueError(
            f"path: {path.name} needs ffmpeg, which is not found; name a .gif, or pip install imageio-ffmpeg"
        )
    return FFMpegWriter(per_second)


def _with_ffmpeg() -> AbstractContextManager[None]:
    """Matplotlib's ffmpeg is the one that imageio-ffmpeg brings, unless the user has named another."""
    name: Any = "animation.ffmpeg_path"
    has_own = mpl.rcParams[name] == mpl.rcParamsDefault[name] and not FFMpegWriter.isAvailable()
    if not has_own or importlib.util.find_spec("imageio_ffmpeg") is None:
        return nullcontext()
    return mpl.rc_context({name: importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()})
