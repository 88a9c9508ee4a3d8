"""Imports point one way, and `ncsam` and `landscape` need little."""

import ast
import os
import subprocess
import sys

import pytest

OURS = {"analysis", "figures", "landscape", "ncsam"}
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_BODY, MOST_PARAMETERS = 400, 60, 10
REASONS_FOR_MORE_PARAMETERS = {
    "landscape": {
        "_embedding_bag": "it stands in for torch's function and has that function's arguments",
        "top_eigenvalues": "options of one measurement, each with a default; a caller names the few that differ",
        "lines": "options of one measurement, each with a default; a caller names the few that differ",
        "surfaces": "options of one measurement, each with a default; a caller names the few that differ",
        "Objective.__init__": "what a batch is, and options with a default; a caller names the few that differ",
        "sharpness_profile": "the budgets of five families of measures, each with a default",
    },
    "ncsam": {
        "fit": "what is trained, and options with a default; a caller names the few that differ",
        "NCSAM.__init__": "the paper's three settings, and its ablations, each with the paper's choice as the default",
        "corrupt_labels": "each kind of noise takes one or two of them and refuses the others",
    },
    "analysis": {},
    "figures": {},
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


def test_imports_point_one_way_and_without_circles(pytestconfig):
    """The contracts are in pyproject.toml; imports under TYPE_CHECKING count too."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run(
        [*command, "--no-cache", "--no-logo", "pyproject.toml"],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def functions_of(tree, prefix=""):
    """(name, function) of each function; that of a method has its class before the dot."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        inner = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
        yield from functions_of(node, inner)


def lines_of_body(function):
    """The lines of its code, without the docstring."""
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - statements[0].lineno + 1 if statements else 0


def parameters_of(function):
    names = [
        each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    ]
    return [name for name in names if name not in ("self", "cls")]


TWINS = [
    ("landscape/plain_numbers.py", "ncsam/plain_numbers.py"),
    ("landscape/model/deep_copies.py", "ncsam/methods/deep_copies.py"),
]
"""Neither package imports the other, so that each has its own copy."""


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_what_both_packages_need_is_the_same_file_in_both(first, second, pytestconfig):
    assert (pytestconfig.rootpath / first).read_bytes() == (pytestconfig.rootpath / second).read_bytes()


@pytest.mark.parametrize("folder", [*sorted(OURS), "bench", "docs", "tests"])
def test_files_and_functions_are_short_and_take_few_parameters(folder, pytestconfig):
    too_long, too_many = [], set()
    for path in (pytestconfig.rootpath / folder).rglob("*.py"):
        if len(path.read_text().splitlines()) > MOST_LINES_OF_A_FILE:
            too_long.append(path.name)
        for name, function in functions_of(ast.parse(path.read_text())):
            if lines_of_body(function) > MOST_LINES_OF_A_BODY:
                too_long.append(f"{path.name}: {name}")
            if len(parameters_of(function)) > MOST_PARAMETERS:
                too_many.add(name)
    assert not too_long
    assert too_many == set(REASONS_FOR_MORE_PARAMETERS.get(folder, {}))


def test_who_works_loads_no_pandas_and_who_reads_claims_no_matplotlib():
    unloaded = {
        "analysis.engine.processes": {"pandas", "matplotlib", "scipy.stats"},
        "analysis.engine.work": {"pandas", "matplotlib", "scipy.stats"},
        "analysis.run": {"pandas", "matplotlib", "scipy.stats"},
        "analysis.claims": {"matplotlib", "scipy.stats"},
    }
    code = "".join(
        f"import sys, {module}; assert not {slow!r} & set(sys.modules), {module!r}\n"
        for module, slow in unloaded.items()
    )
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
        f"from {package} import *\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
