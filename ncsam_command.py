"""The command `ncsam`, and the search for folders that hide its packages.

A folder `figures/` or `analysis/` beside a script hides the package of that name. Python then says no more than
`cannot import name`. This module has a name of its own, imports nothing heavy, and says which folder is in the way.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("analysis", "figures", "landscape", "ncsam")
HOME = Path(__file__).resolve().parent
"""The folder of this module and of the four packages, in a source tree and in an installation alike."""


def hidden_packages() -> dict[str, Path]:
    """Each of the four packages that Python finds elsewhere than here -> what it finds instead."""
    found = {name: _place(name) for name in PACKAGES if (HOME / name / "__init__.py").is_file()}
    return {
        name: place for name, place in found.items() if place is not None and place.parent.resolve() != HOME
    }


def _place(name: str) -> Path | None:
    """The folder, or the file of a module, that an import of this name leads to."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        # a finder of somebody else refuses, or a module that was made by hand says nothing of where it is from
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin else None


def in_words(hidden: dict[str, Path]) -> str:
    """What hides which package, and the remedy, in one line."""
    parts = [f"{place} hides the package {name!r} of ncsam" for name, place in hidden.items()]
    return f"{'; '.join(parts)}: rename it, or start Python in another folder"


def warn_of_hidden_packages() -> None:
    """Warns if one of the four packages is hidden; the others work without it."""
    if hidden := hidden_packages():
        warnings.warn(in_words(hidden), stacklevel=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status: that of `analysis.cli.main`, or 2 if a package is hidden."""
    if hidden := hidden_packages():
        print(f"ncsam: error: {in_words(hidden)}", file=sys.stderr)
        return 2
    from analysis.cli import main as run

    return run(arguments)
