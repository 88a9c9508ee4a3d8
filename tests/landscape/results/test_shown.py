"""Results in a line, in a notebook, in xarray and in pandas."""

import dataclasses
import html
import math
import sys

import numpy as np
import pytest
import torch

from landscape import Line, Surface, TopEigenvalues, TraceEstimate, load, save
from landscape.results.registry import RESULT_CLASSES
from landscape.results.shown import LINE, Result

AXIS = np.linspace(-1, 1, 3)
LOSS = np.array([[1.0, 2, 3], [4, 5, np.nan], [7, 8, 9]])
SURFACE = Surface(AXIS, 2 * AXIS, LOSS, LOSS / 10, 5.0, 0.5, np.ones(2), 0.0, 10)
EIGEN = TopEigenvalues(
    values=np.array([3.0, 1.0]),
    residuals=np.array([0.1, 0.2]),
    errors=np.array([0.1, 0.2]),
    converged=np.array([True, False]),
    vectors=torch.eye(5, 2, dtype=torch.bfloat16),
    products=12,
    which="largest",
    tol=0.1,
    matrix="hessian",
    method="own",
    samples=10,
)
TRACE = TraceEstimate(1.5, 0.1, 1.3, 1.7, 4.0, 0.2, False, 30, "hessian", "xtrace", 10)


def test_every_result_of_the_package_can_be_shown():
    ours = [cls for cls in RESULT_CLASSES.values() if cls.__module__.startswith("landscape.")]
    assert len(ours) > 20
    assert all(issubclass(cls, Result) for cls in ours)


@pytest.mark.parametrize("result", [SURFACE, EIGEN, TRACE], ids=lambda result: type(result).__name__)
def test_a_result_is_one_short_line_that_says_whether_it_converged(result):
    line = repr(result)
    assert "\n" not in line
    assert len(line) <= LINE
    assert line.startswith(f"{type(result).__name__}(")
    assert ("converged=" in line) == hasattr(result, "converged")


def test_the_line_shows_few_numbers_and_the_range_of_many_and_counts_what_is_not_finite():
    assert "values=[3, 1]" in repr(EIGEN)
    assert "loss=<3 x 3, 1 to 9, 1 not finite>" in repr(SURFACE)
    nothing = dataclasses.replace(SURFACE, loss=np.full((3, 3), math.nan))
    assert "loss=<3 x 3, 9 not finite>" in repr(nothing)


def test_a_notebook_shows_every_field_with_its_unit_and_meaning_and_no_tag_of_a_text():
    table = dataclasses.replace(TRACE, method="<b>")._repr_html_()
    for field in dataclasses.fields(TRACE):
        assert field.name in table
        assert html.escape(field.metadata["description"]) in table
    assert "<b>" not in table
    assert "nat" in SURFACE._repr_html_()


def test_xarray_has_dimensions_coordinates_units_and_texts_as_attributes():
    data = SURFACE.to_xarray()
    assert data["loss"].dims == ("alpha", "beta")
    assert float(data["loss"].sel(alpha=-1, beta=2)) == 3
    assert data["loss"].attrs["units"] == "nat"
    assert data.attrs["type"] == "Surface"
    assert data.attrs["batch_norm"] == "eval"
    assert EIGEN.to_xarray()["vectors"].shape == (5, 2)


def test_without_xarray_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="pip install xarray"):
        SURFACE.to_xarray()


def test_a_frame_has_a_row_for_each_point_and_keeps_single_numbers_beside():
    frame = SURFACE.to_frame()
    assert list(frame.columns) == ["loss", "accuracy"]
    assert frame.index.names == ["alpha", "beta"]
    assert frame.loc[(1.0, -2.0), "loss"] == 7
    assert frame.attrs["center_loss"] == 5
    assert list(EIGEN.to_frame("eigenvalue")["converged"]) == [True, False]


def test_a_result_of_single_numbers_is_one_row():
    assert TRACE.to_frame().loc[0, "value"] == 1.5


def test_dimensions_that_no_field_has_are_an_error_that_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"^dims: no field has the dimensions beta; there are alpha, beta; direction"
    ):
        SURFACE.to_frame("beta")


def test_what_is_loaded_is_shown_as_what_was_saved(tmp_path):
    line = Line(AXIS, LOSS[0], LOSS[0], 1.0, 0.5, 1.0, 10)
    save(tmp_path / "file.h5", "line", line)
    assert repr(load(tmp_path / "file.h5", "line")) == repr(line)
