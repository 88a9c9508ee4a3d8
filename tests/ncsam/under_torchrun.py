"""A training under `torchrun`: `torchrun --nproc-per-node 2 -m tests.ncsam.under_torchrun FOLDER`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import SAM, Split, corrupt_labels, fit
from tests.ranks import leave

INPUTS = torch.randn(96, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(3, (96,), generator=torch.Generator().manual_seed(1))


class Killed(Exception):
    pass


def killed_after_the_first_epoch(epoch, *_):
    if epoch == 1:
        raise Killed


def trained(samples, epochs=3, **options):
    """(history, weights) of a training with SAM on some of the samples."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    method = SAM(DistributedDataParallel(network), nn.CrossEntropyLoss(), rho=0.1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    data, labels = Split(INPUTS, TARGETS), corrupt_labels(TARGETS, rate=0.4, seed=0)
    history = fit(
        method, optimizer, data.take(samples), labels.take(samples), data,
        epochs=epochs, batch_size=16, seed=0, **options,
    )  # fmt: skip
    return history.metrics, network.state_dict()


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    everything = torch.arange(96)
    whole = trained(everything)
    # each rank names a file of its own, so that a second writer would show
    checkpoint = folder / f"rank{rank}.ckpt"
    try:
        trained(everything, checkpoint=checkpoint, on_epoch=killed_after_the_first_epoch)
    except Killed:
        dist.barrier()
    files = sorted(path.name for path in folder.glob("*.ckpt"))
    resumed = trained(everything, checkpoint=folder / "rank0.ckpt")
    own = everything.view(2, 48)[rank]
    steps = []
    try:
        trained(own[: 48 - 20 * rank], on_epoch=lambda epoch, *_: steps.append(epoch))
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    torch.save((whole, resumed, files, refusal, steps), folder / f"outcome{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
