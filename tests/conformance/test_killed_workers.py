"""Killed workers of a DataLoader: their error comes with a batch, and not where processes wait for each other."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from landscape.data.failed_workers import read_by_workers
from ncsam.datasets.workers import read_by_workers as read_by_workers_of_ncsam

READERS = {"landscape": read_by_workers, "ncsam": read_by_workers_of_ncsam}
pytestmark = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def loader(**options):
    return DataLoader(TensorDataset(torch.arange(400.0)), batch_size=40, num_workers=2, **options)


def processes():
    """The workers of this process that are there now."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(number) for number in file.read().split()}


def kill(worker):
    """Kills a worker and lets the signal of its death arrive."""
    handler, arrived = signal.getsignal(signal.SIGCHLD), []
    signal.signal(signal.SIGCHLD, lambda *_: arrived.append(True))
    os.kill(worker, signal.SIGKILL)
    while not arrived:
        signal.sigtimedwait([], 0.01)
    signal.signal(signal.SIGCHLD, handler)
    handler(signal.SIGCHLD, None)


def test_a_worker_that_is_killed_between_two_batches_raises_its_error_at_the_next_ones(read):
    before, batches = processes(), read(loader())
    next(batches)
    kill(min(processes() - before))
    with pytest.raises(RuntimeError, match=r"^data: a worker of the DataLoader.*num_workers=0"):
        list(batches)


def test_no_worker_raises_an_error_after_the_first_one(read):
    before, batches = processes(), read(loader())
    next(batches)
    first, second = sorted(processes() - before)
    kill(first)
    with pytest.raises(RuntimeError) as raised:
        list(batches)
    # as the error's traceback does, which holds torch's own iterator
    assert raised.value is not None
    assert second not in processes()
    signal.raise_signal(signal.SIGCHLD)


def test_the_handler_of_the_signal_is_as_before_once_the_batches_are_read(read):
    next(iter(loader()))
    before = signal.getsignal(signal.SIGCHLD)
    for _ in read(loader()):
        assert signal.getsignal(signal.SIGCHLD) is not before
    assert signal.getsignal(signal.SIGCHLD) is before
    batches = read(loader())
    next(batches)
    batches.close()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_two_readers_at_a_time_leave_a_handler_that_tells_of_dead_workers(read):
    first, second = read(loader()), read(loader())
    next(first)
    next(second)
    first.close()
    second.close()
    before, batches = processes(), iter(loader())
    next(batches)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        kill(min(processes() - before))


def test_a_worker_that_is_killed_between_two_passes_is_replaced(read):
    before, data = processes(), loader(persistent_workers=True)
    first = torch.cat([batch for (batch,) in read(data)])
    kill(min(processes() - before))
    again = torch.cat([batch for (batch,) in read(data)])
    assert torch.equal(again, first)


def test_workers_that_stay_are_the_same_in_each_pass(read):
    before, data = processes(), loader(persistent_workers=True)
    list(read(data))
    workers = processes() - before
    list(read(data))
    assert processes() - before == workers


def test_a_worker_that_stays_and_is_killed_within_a_later_pass_raises_its_error_and_is_replaced(read):
    before, data = processes(), loader(persistent_workers=True)
    list(read(data))
    batches = read(data)
    next(batches)
    kill(min(processes() - before))
    with pytest.raises(RuntimeError, match=r"^data: a worker of the DataLoader"):
        list(batches)
    assert len(list(read(data))) == 10
