"""By which versions of packages results are computed."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

PACKAGES = ("ncsam", "torch", "numpy", "scipy", "h5py", "pyhessian")


@functools.cache
def versions() -> dict[str, str]:
    """Python and the packages that compute results -> their versions, which are looked up once a process."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
