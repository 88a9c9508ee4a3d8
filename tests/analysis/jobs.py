"""Jobs for engines, in a module that imports nothing, so that their workers start soon."""

import os
import signal


class Die:
    """A job that kills its worker, always or but once."""

    def __init__(self, once_at=None):
        self.once_at = once_at

    def __call__(self, report):  # noqa: ARG002
        if self.once_at is not None:
            if self.once_at.exists():
                return
            self.once_at.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def do_nothing(report):
    report("nothing", 1, 1)


def use_up_the_memory(report):
    raise MemoryError("tried to allocate 1 TiB")
