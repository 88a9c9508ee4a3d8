"""Data that several tests of training share."""

import pytest
import torch.distributed as dist

from ncsam import corrupt_labels, load_dataset


@pytest.fixture(scope="module")
def digits():
    """The digits, and their labels with 40% symmetric noise."""
    dataset = load_dataset("digits")
    return dataset, corrupt_labels(dataset.train.targets, rate=0.4, seed=0)


@pytest.fixture(scope="module")
def planted():
    """The digits, and their labels with 20% symmetric noise: wrong labels to be found."""
    dataset = load_dataset("digits")
    return dataset, corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.2, seed=0)


@pytest.fixture
def one_rank(tmp_path):
    """This process is the only one of a process group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
