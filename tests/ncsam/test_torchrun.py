"""`torchrun` starts the ranks: one history, one writer, an exact resume, and no training on unequal shares."""

import subprocess
import sys

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, pytestconfig):
    """What each of the two ranks wrote: its history, weights and files."""
    folder = tmp_path_factory.mktemp("torchrun")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.ncsam.under_torchrun", str(folder)],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"outcome{rank}.pt", weights_only=False) for rank in range(2)]


def differences(one, other):
    """Names of the metrics and weights in which two trainings differ in any bit."""
    (metrics, weights), (other_metrics, other_weights) = one, other
    names = [
        name
        for name in metrics
        if name != "seconds" and not np.array_equal(metrics[name], other_metrics[name], equal_nan=True)
    ]
    return names + [name for name in weights if not torch.equal(weights[name], other_weights[name])]


def test_both_ranks_return_one_history_and_one_model(outcomes):
    (first, *_), (second, *_) = outcomes
    assert differences(first, second) == []
    assert first[0]["train_loss"][-1] < first[0]["train_loss"][0]


def test_rank_0_alone_writes_the_checkpoint(outcomes):
    assert [files for _, _, files, _, _ in outcomes] == [["rank0.ckpt"]] * 2


def test_killed_ranks_resume_to_the_same_bits(outcomes):
    for whole, resumed, *_ in outcomes:
        assert differences(whole, resumed) == []


def test_unequal_shares_are_refused_on_both_ranks_before_the_first_step(outcomes):
    for _, _, _, refusal, steps in outcomes:
        assert "3" in refusal
        assert "steps" in refusal
        assert steps == []
