"""The documentation site: `make docs` builds it into site/."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = PROJECT["name"]
release = version = PROJECT["version"]
copyright = "the authors of ncsam"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["conf.py", "jupyter_execute"]
# the notebooks are run anew at each build
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
copybutton_exclude = ".linenos, .gp, .go"
default_role = "code"  # single backticks in docstrings
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["tables.css"]
myst_heading_anchors = 3
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_numpy_docstring = False


def _complete(_app: Any, what: str, _name: str, item: Any, _options: Any, lines: list[str]) -> None:
    """Makes a docstring what Sphinx expects.

    Norms |x| and ||x|| are not its substitutions. Results describe their fields where they are declared, for storage
    too; nothing else would show them.
    """
    lines[:] = [re.sub(r"\|(?=\S)", r"\\|", line) for line in lines]
    if what == "class" and dataclasses.is_dataclass(item):
        lines += [line for field in dataclasses.fields(item) for line in _described(field)]


def _described(field: dataclasses.Field[Any]) -> list[str]:
    about = field.metadata
    if "description" not in about:
        return []
    unit = f", in {about['unit']}" if about["unit"] else ""
    shape = f" ({', '.join(about['dims'])})" if about["dims"] else ""
    words = about["description"].replace("|", r"\|")
    return ["", f":ivar {field.name}: {words}{unit}; ``{field.type}``{shape}"]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _complete)
