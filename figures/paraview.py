"""Surfaces and trajectories as files of ParaView."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from landscape import Surface, Trajectory
from landscape.results.files import replaced


def write_surface(surface: Surface, path: str | Path) -> Path:
    """Writes a surface as a grid with the losses and all else that is known at its points.

    A `.vti` holds a grid of even steps, a `.vtr` one of any. In ParaView "Warp By Scalar" lifts the plane by the loss.
    Losses that are not finite stay so.

    Args:
        surface: its alpha is x, its beta y.
        path: ends in .vti or .vtr.

    Raises:
        ModuleNotFoundError: pyvista is not installed.
        ValueError: another ending, or a .vti of uneven steps.
    """
    pyvista, target = _pyvista(), Path(path)
    if target.suffix == ".vtr":
        grid = pyvista.RectilinearGrid(surface.alpha, surface.beta, np.zeros(1))
    elif target.suffix == ".vti":
        steps = [_step(name, axis) for name, axis in (("alpha", surface.alpha), ("beta", surface.beta))]
        grid = pyvista.ImageData(
            dimensions=(len(surface.alpha), len(surface.beta), 1),
            spacing=(*steps, 1.0),
            origin=(surface.alpha[0], surface.beta[0], 0.0),
        )
    else:
        raise ValueError(f"path: must end in .vti or .vtr, got {target.name!r}")
    for name in ("loss", "accuracy", "loss_error", "rise_error", "evaluated", "loss_interpolation_error"):
        values = getattr(surface, name)
        if values is not None:
            # the first axis runs fastest in VTK
            grid.point_data[name] = np.asarray(values, dtype=np.float64).ravel(order="F")
    return _written(grid, target)


def write_trajectory(trajectory: Trajectory, path: str | Path, *, height: ArrayLike | None = None) -> Path:
    """Writes a trajectory as a line through its checkpoints, with their numbers and distances from the plane.

    Args:
        trajectory: its first two coordinates are x and y.
        path: ends in .vtp.
        height: (checkpoints,), z of each, such as its loss; 0 if not given.

    Raises:
        ModuleNotFoundError: pyvista is not installed.
        ValueError: another ending, another number of heights, or a trajectory along one direction.
    """
    pyvista, target, count = _pyvista(), Path(path), len(trajectory.coordinates)
    if target.suffix != ".vtp":
        raise ValueError(f"path: must end in .vtp, got {target.name!r}")
    if trajectory.coordinates.shape[1] < 2:
        raise ValueError("trajectory: is along one direction; a plane needs two")
    z = np.zeros(count) if height is None else np.asarray(height, dtype=np.float64)
    if z.shape != (count,):
        raise ValueError(f"height: must be one for each of {count} checkpoints, got {z.shape}")
    points = np.column_stack([trajectory.coordinates[:, :2], z])
    line = pyvista.PolyData(points, lines=np.array([count, *range(count)]))
    line.point_data["checkpoint"] = np.arange(count)
    line.point_data["distance_from_plane"] = trajectory.distances
    if height is not None:
        line.point_data["height"] = z
    return _written(line, target)


def _step(name: str, axis: np.ndarray) -> float:
    steps = np.diff(axis)
    if not np.allclose(steps, steps[0], rtol=1e-9):
        raise ValueError(f"surface: the steps of {name} are uneven, which a .vti cannot hold; name a .vtr")
    return float(steps[0])


def _written(data: Any, target: Path) -> Path:
    with replaced(target, suffix=target.suffix) as beside:
        data.save(beside)
    return target


def _pyvista() -> Any:
    try:
        return importlib.import_module("pyvista")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("files of ParaView need pyvista: pip install 'ncsam[paraview]'") from error
