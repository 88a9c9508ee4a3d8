"""Training under label noise with sharpness-aware methods.

::

    noisy = corrupt_labels(train.targets, kind="symmetric", rate=0.4, seed=0)
    method = NCSAM(model, loss_fn, rho=0.05, flip_ratio=0.4, strength=0.1)
    method.backward(inputs, targets)        # where loss.backward() stood
"""

import importlib
from typing import TYPE_CHECKING

from ncsam_command import warn_of_hidden_packages

if TYPE_CHECKING:
    # for type checkers, and for Sphinx, which imports packages as they do
    from ncsam.public import *  # noqa: F403
    from ncsam.public import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """A public name or a module, from `ncsam.public`. The help of `python -m ncsam` needs neither it nor torch."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = importlib.import_module("ncsam.public")
        globals().update({public_name: getattr(public, public_name) for public_name in public.__all__})
        globals()["__all__"] = public.__all__
        if name in globals():
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """The public names and the modules."""
        return sorted({*globals(), *__getattr__("__all__")})


warn_of_hidden_packages()
