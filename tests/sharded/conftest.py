"""Two ranks under FSDP2, started once for all tests: starting them costs more than what they compute."""

import pytest
import torch

from tests.ranks import joined, on_two_ranks
from tests.sharded import test_sharded_methods, test_sharded_objective


def _rank(rank, port, folder):
    with joined(rank, port):
        found = {
            "methods": test_sharded_methods.measured(rank),
            "objectives": test_sharded_objective.measured(rank),
        }
        torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    on_two_ranks(_rank, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture
def methods(ranks):
    """What each of the ranks found about methods."""
    return [found["methods"] for found in ranks]


@pytest.fixture
def objectives(ranks):
    """What each of the ranks found about Objectives."""
    return [found["objectives"] for found in ranks]
