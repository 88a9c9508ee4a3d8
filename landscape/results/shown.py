"""The forms of every result: a line, a table for notebooks, xarray, pandas, a figure."""

from __future__ import annotations

import dataclasses
import html
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from landscape.results.fields import LOSS_UNIT

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

LINE = 110
"""Most characters of a result's line."""
FEW = 5
"""All numbers of an array are shown if there are at most this many."""
FIGURES = "figures.of_results"
"""The module that draws results. The first figure imports it, because measuring needs no Matplotlib."""


class Result:
    """The base of result classes."""

    def __repr__(self) -> str:
        """One line with the first fields in short, and with the result's convergence."""
        parts = {
            field.name: f"{field.name}={_short(value)}"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        }
        name = type(self).__name__
        shown = list(parts)
        while len(line := f"{name}({', '.join(map(parts.__getitem__, shown))}, ...)") > LINE:
            droppable = [field for field in shown if field != "converged"]
            if len(droppable) < 2:
                break
            shown.remove(droppable[-1])
        return line if len(shown) < len(parts) else line.replace(", ...)", ")")

    def _repr_html_(self) -> str:
        """A table of all fields for notebooks: value, unit, meaning."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(field.name)}</th>"
            f"<td style='text-align:left'>{html.escape(_short(value))}</td>"
            f"<td style='text-align:left'>{html.escape(self._unit(field))}</td>"
            f"<td style='text-align:left'>{html.escape(field.metadata['description'])}</td></tr>"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) is not None
        )
        return f"<table><caption style='text-align:left'>{type(self).__name__}</caption>{rows}</table>"

    def to_xarray(self) -> xr.Dataset:
        """All fields as a data set with named dimensions, coordinates, units and descriptions.

        A field without dimensions is a variable, or an attribute if it is text.

        Raises:
            ModuleNotFoundError: xarray is not installed.
        """
        try:
            import xarray as xr
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_xarray needs xarray: pip install xarray") from error
        variables: dict[str, Any] = {}
        coordinates: dict[str, Any] = {}
        attributes: dict[str, Any] = {"type": type(self).__name__}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, str):
                attributes[field.name] = value
                continue
            about = {"description": field.metadata["description"], "units": self._unit(field)}
            kept = coordinates if field.metadata["coordinate"] else variables
            kept[field.name] = (field.metadata["dims"], _array(value), about)
        return xr.Dataset(variables, coordinates, attributes)

    def to_frame(self, *dims: str) -> pd.DataFrame:
        """The fields that have exactly these dimensions as columns, one row an entry.

        The index holds the coordinates of the dimensions. A dimension without coordinates has positions. Fields without
        dimensions are in `attrs`. A result without arrays is one row.

        Args:
            dims: names of dimensions, such as `"alpha", "beta"`. If not given: those of the first field that is no
                coordinate.

        Raises:
            ValueError: no field has these dimensions.
        """
        import pandas as pd

        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        held = {field.name: field for field in fields if getattr(self, field.name) is not None}
        arrays = {name: field for name, field in held.items() if field.metadata["dims"]}
        single = {name: getattr(self, name) for name in held if name not in arrays}
        if not arrays and not dims:
            return pd.DataFrame([single])
        data = {name: field for name, field in arrays.items() if not field.metadata["coordinate"]}
        chosen = dims or tuple(next(iter(data.values())).metadata["dims"])
        columns = {
            name: _array(getattr(self, name))
            for name, field in data.items()
            if field.metadata["dims"] == chosen
        }
        if not columns:
            known = "; ".join(dict.fromkeys(", ".join(field.metadata["dims"]) for field in data.values()))
            raise ValueError(f"dims: no field has the dimensions {', '.join(chosen)}; there are {known}")
        shape = next(iter(columns.values())).shape
        axes = [
            _array(getattr(self, dim)) if dim in arrays and dim not in data else np.arange(length)
            for dim, length in zip(chosen, shape, strict=True)
        ]
        index = (
            pd.MultiIndex.from_product(axes, names=chosen)
            if len(chosen) > 1
            else pd.Index(axes[0], name=chosen[0])
        )
        frame = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)
        frame.attrs.update(single)
        return frame

    def _unit(self, field: dataclasses.Field[Any]) -> str:
        unit: str = field.metadata["unit"]
        return str(getattr(self, "loss_unit", "")) if unit == LOSS_UNIT else unit


class DrawnResult(Result):
    """The base of results that have a figure of their own."""

    def plot(self, **options: Any) -> Figure:
        """A Matplotlib figure of this result. A notebook shows the figure.

        Args:
            options: `width=` in inches and `style=` (`figures.Style`), and those of the result's function in
                `figures`, such as `loss_name=`. Several results side by side: call that function.
        """
        figure: Figure = importlib.import_module(FIGURES).draw(self, **options)
        return figure


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16
        return np.asarray(value.float() if value.is_floating_point() and value.itemsize < 4 else value)
    return np.asarray(value)


def _short(value: Any) -> str:
    """A number, a text, a few numbers, or the shape and the range of many."""
    if isinstance(value, str):
        return repr(value)
    array = _array(value)
    if array.ndim == 0:
        return _number(array[()])
    if array.size <= FEW and array.ndim == 1:
        return f"[{', '.join(map(_number, array))}]"
    shape = " x ".join(map(str, array.shape))
    if array.dtype.kind == "b":
        return f"<{shape}, {int(array.sum())} true>"
    if array.dtype.kind not in "iuf" or array.size == 0:
        return f"<{shape}>"
    finite = array[np.isfinite(array)]
    holes = "" if finite.size == array.size else f", {array.size - finite.size} not finite"
    if finite.size == 0:
        return f"<{shape}{holes}>"
    return f"<{shape}, {_number(finite.min())} to {_number(finite.max())}{holes}>"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else f"{value}"
