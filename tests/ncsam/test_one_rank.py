"""DistributedDataParallel in a single process: each method does what it does without."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ncsam import METHODS
from tests.ncsam.test_ranks_that_share_a_batch import SIZE, stepped


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", METHODS)
def test_a_wrapper_for_one_process_changes_no_step(one_rank, name):
    rows = torch.arange(SIZE)
    found, truth = (stepped(name, rows, wrap) for wrap in (DistributedDataParallel, lambda model: model))
    torch.testing.assert_close(found, truth)
