"""Two processes that work together, as `torch.distributed` has them."""

import multiprocessing
import os
import socket
from contextlib import contextmanager

import torch
import torch.distributed as dist

from analysis.engine import processes

multiprocessing.set_forkserver_preload(
    [
        "torch.distributed.fsdp",
        "landscape",
        "ncsam.public",
        "analysis.engine.processes",
        "analysis.run.one_run",
    ]
)
"""The server of ranks and of a study's workers imports these once, which takes seconds; it computes nothing, so that it
can be copied."""


def workers_are_copies(monkeypatch):
    """The workers of studies are copies of the server."""
    monkeypatch.setattr(processes, "START", "forkserver")


@contextmanager
def joined(rank, port):
    """In a spawned process: is this rank of two, on one thread."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    yield
    # a rank that leaves while the other still reads from it can abort that one
    dist.barrier()
    dist.destroy_process_group()


def on_two_ranks(main, *arguments):
    """Runs main(rank, port, *arguments) in two processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.start_processes(_run, (main, port, *arguments), nprocs=2, start_method="forkserver")


def _run(rank, main, *arguments):
    main(rank, *arguments)
    leave()


def leave():
    """Ends the process at once. Python's own exit takes threads of torch apart, and at times aborts."""
    os._exit(0)


def fully_sharded(model):
    """The model under FSDP2, with each child that has weights as a unit of its own."""
    # the import takes a second
    from torch.distributed.fsdp import fully_shard

    for child in model.children():
        if any(True for _ in child.parameters()):
            fully_shard(child)
    return fully_shard(model)


def keeps_weights(module):
    """The module as a unit of FSDP2 whose weights stay whole after its forward pass."""
    from torch.distributed.fsdp import fully_shard

    return fully_shard(module, reshard_after_forward=False)
