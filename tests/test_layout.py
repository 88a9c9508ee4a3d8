"""Imports point one way, and `ncsam` and `landscape` need little."""

import ast
import subprocess
import sys

import pytest

OURS = {"analysis", "figures", "landscape", "ncsam"}
ALLOWED = {
    "analysis": OURS,
    "figures": {"figures", "landscape"},
    "landscape": {"landscape"},
    "ncsam": {"ncsam"},
}
OTHERS = (
    *(
        "pandas",
        "matplotlib",
        "plotly",
        "pydantic",
        "rich",
        "sklearn",
        "mlxtend",
        "PIL",
        "pyhessian",
        "tomli_w",
    ),
    *("statsmodels", "jinja2", "dask", "distributed"),
)
SLOW_PARTS_OF_SCIPY = ("scipy.special", "scipy.stats", "scipy.optimize", "scipy.spatial")
"""SciPy loads each when it is first used; together they take longer to import than all of ours."""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package, pytestconfig):
    for path in (pytestconfig.rootpath / package).rglob("*.py"):
        assert OURS & set(imported(path)) <= ALLOWED[package], path


@pytest.mark.parametrize(
    "module", ["analysis.claims", "analysis.engine.processes", "analysis.engine.work", "analysis.run"]
)
def test_who_judges_and_who_works_loads_no_matplotlib(module):
    code = f"import sys, {module}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["ncsam", "landscape"])
def test_training_and_measuring_are_imported_fast_and_need_no_more_than_torch_numpy_scipy_and_h5py(package):
    refused = {*OTHERS, *SLOW_PARTS_OF_SCIPY, *OURS - {package}}
    code = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name in {refused!r}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"import {package}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
