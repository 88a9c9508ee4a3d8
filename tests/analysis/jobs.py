"""Jobs for engines, in a module that imports nothing, so that their workers start soon."""

import os
import signal
import time


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


class DieReporting:
    """A job that kills its worker in the middle of a report, but once."""

    def __init__(self, once_at):
        self.once_at = once_at

    def __call__(self, report):
        if not self.once_at.exists():
            self.once_at.touch()
            from analysis.engine import processes

            processes._events._wlock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        report("second life", 1, 1)


def report_and_wait(report):
    report("waiting", 1, 1)
    time.sleep(60)


def report_much(report):
    for step in range(20_000):
        report("much", step, 20_000)


def do_nothing(report):
    report("nothing", 1, 1)


class OddError(Exception):
    """An error that Python cannot read back in another process, as some of compilers cannot be."""

    def __init__(self, word, other):
        super().__init__(f"{word} {other}")


def fail_oddly(report):
    raise OddError("no", "compiler")


def use_up_the_memory(report):
    raise MemoryError("tried to allocate 1 TiB")
