"""The user's files that register methods, models, data sets, losses, label noise, measures or claims.

A study that needs such a file names its SHA-256. This is a part of the fingerprint of every run, because a changed file
makes other results. The source is sent to the workers, which execute it before their first run. A folder of results
names the file, and never executes it.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
import types
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from analysis.plan.errors import StudyError


@dataclass(frozen=True)
class OwnPart:
    """A Python file of the user that registers parts.

    Attributes:
        name: name of the file.
        source: content of the file.
    """

    name: str
    source: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.source).hexdigest()

    def load(self) -> None:
        """Executes the file, once in a process.

        Raises:
            ValueError: as for `run`.
        """
        if self.sha256 not in LOADED:
            self.run()

    def run(self) -> None:
        """Executes the file.

        Raises:
            ValueError: the file is not Python, or fails, such as for a name that is taken.
        """
        # dataclasses look for the module of a class among the imported modules
        module = types.ModuleType(f"own_part_{self.sha256[:12]}")
        module.__file__ = self.name
        sys.modules[module.__name__] = module
        try:
            exec(compile(self.source, self.name, "exec"), vars(module))
        except Exception as error:
            place = _last_line(error, {self.name}) or f"{self.name} fails"
            raise ValueError(f"--with: {place}: {type(error).__name__}: {error}") from error
        LOADED[self.sha256] = self


LOADED: dict[str, OwnPart] = {}
"""SHA-256 -> file, for each file that was executed in this process."""


def read_own_part(path: Path) -> OwnPart:
    """Reads and executes a file of the user that registers parts.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not Python, or fails.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--with: {path} does not exist")
    part = OwnPart(path.name, path.read_bytes())
    part.run()
    return part


OWN_LINE = "line_of_own_part"
"""Attribute of an error that a worker hands back, which loses its traceback on the way."""


def line_of_own_part(error: BaseException) -> str:
    """The last line of a user's file on the way to the error, such as "mine.py, line 8"; empty if there is none."""
    return _last_line(error, {part.name for part in LOADED.values()})


def _last_line(error: BaseException | None, names: Collection[str]) -> str:
    while error is not None:
        lines = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in names]
        if lines:
            return f"{lines[-1].filename}, line {lines[-1].lineno}"
        # an error that was raised because of another one
        error = error.__cause__
    return ""


@contextmanager
def keeping_lines() -> Iterator[None]:
    """An error within the block keeps the line of the user's file, for `told` in another process."""
    try:
        yield
    except Exception as error:
        vars(error)[OWN_LINE] = line_of_own_part(error)
        raise


def told(error: BaseException) -> str:
    """The error of a run in words, behind the line of the user's file that it came through, if there is one."""
    place = vars(error).get(OWN_LINE)
    said = f"{type(error).__name__}: {error}"
    return f"{place}: {said}" if place else said


def fault_of_own_parts(error: Exception) -> str:
    """One line for an error that a part of the user's may have caused; empty if no file of the user was executed.

    It names the last line of the user's file on the way to the error. If there is none, either a part that was called
    or read is not what its registry takes, or ncsam itself is at fault.
    """
    if not LOADED:
        return ""
    said = f"{type(error).__name__}: {error}; docs/own_parts.md says what each part takes and returns"
    place = line_of_own_part(error)
    if place:
        return f"--with: {place}: {said}"
    names = sorted({part.name for part in LOADED.values()})
    return f"--with: a part of {', '.join(names)}, or ncsam itself: {said}"


def named(parts: list[OwnPart]) -> dict[str, str]:
    """Name -> SHA-256 of the files, as a study holds them.

    Raises:
        ValueError: two files have one name.
    """
    found = {part.name: part.sha256 for part in parts}
    if len(found) < len(parts):
        raise ValueError("--with: two files have one name; rename one")
    return found


def are_loaded(own_parts: Mapping[str, str]) -> bool:
    """Whether all these files, name -> SHA-256, were executed in this process."""
    return all(sha256 in LOADED for sha256 in own_parts.values())


def loaded(own_parts: Mapping[str, str]) -> tuple[OwnPart, ...]:
    """The files of a study whose runs will be executed.

    Raises:
        StudyError: a file was not given, or has another content.
    """
    for name, sha256 in own_parts.items():
        if sha256 not in LOADED:
            raise StudyError(
                f"own_parts: the study needs --with {name}, as it was when the study began (SHA-256 {sha256[:12]}...)"
            )
    return tuple(LOADED[sha256] for sha256 in own_parts.values())
