"""Two ranks with other samples each: measures are those of one process with all samples, or are refused on both."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from landscape import (
    Objective,
    average_sharpness,
    curvature_parts,
    line,
    low_loss_bend,
    path,
    random_directions,
)
from landscape.evaluation.evaluator import Evaluator
from tests.conftest import build
from tests.ranks import joined, on_two_ranks

cross_entropy = nn.CrossEntropyLoss()


def other_weights(objective):
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(objective.n_parameters, dtype=torch.float64, generator=generator)
    return objective.theta + 0.3 * noise


def of_batch_norm(objective):
    other = other_weights(objective)
    bend = low_loss_bend(objective, other, steps=6, batch_size=10)
    direction = random_directions(objective, 1)
    return {
        "bend": bend.vector.numpy(),
        "losses on the way": bend.loss,
        "path": path(objective, other, bend=bend, steps=3).loss,
        "line": line(objective, direction, steps=3, batch_norm="recalibrate").loss,
    }


def of_noise(objective):
    """With enough draws that points go in blocks, whose size depends on the samples."""
    found = average_sharpness(objective, sigma=0.05, max_draws=64, rtol=1e-9)
    return {"average sharpness": found.value, "its error": found.standard_error, "draws": found.draws}


def shares(name, group):
    """An objective of this rank's samples, sorted by class so that ranks differ; of all without a group."""
    model, inputs, targets = build(name)
    order = targets.argsort(stable=True)
    if group is not None:
        order = order[:5] if dist.get_rank() == 0 else order[5:]
    return Objective(model, cross_entropy, (inputs[order], targets[order]), process_group=group)


def refusals(rank, group):
    """What each rank says of measures that the samples of one rank do not allow."""
    model, inputs, targets = build("mlp")
    # a class of another weight that rank 1 alone holds, and inputs for the statistics that differ
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64))
    labels = targets.clamp(max=1) if rank == 0 else torch.full_like(targets, 2)
    calls = {
        "class weights": lambda: curvature_parts(
            Objective(model, weighted, (inputs, labels), process_group=group)
        ),
        "an ignored label": lambda: curvature_parts(
            Objective(
                model, cross_entropy, (inputs, targets.where(targets > rank - 1, -100)), process_group=group
            )
        ),
        "calibration": lambda: line(
            shares("cnn-batchnorm-dropout", group),
            torch.ones(len(nn.utils.parameters_to_vector(build("cnn-batchnorm-dropout")[0].parameters()))),
            steps=3,
            batch_norm="recalibrate",
            calibration=build("cnn-batchnorm-dropout")[1][rank:],
        ),
    }
    said = {}
    for name, call in calls.items():
        with pytest.raises((ValueError, RuntimeError)) as error:
            call()
        said[name] = str(error.value)
    return said


def warnings_of_data(rank, group):
    """What is warned of where ranks hold these samples."""
    model, inputs, targets = build("mlp")
    parallel = nn.parallel.DistributedDataParallel(model)
    order = torch.arange(len(targets)) if rank else torch.arange(len(targets)).flip(0)
    ends_otherwise = (
        torch.arange(len(targets)) if rank else torch.arange(len(targets)).clamp(max=len(targets) - 2)
    )
    shares = {
        "the same samples in another order": (model, order, group),
        "samples that begin alike": (model, ends_otherwise, group),
        "shares of their own": (parallel, order[:10], group),
        "one share of a parallel model": (parallel, order[:10], None),
    }
    said = {}
    for name, (one, rows, of) in shares.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Objective(one, cross_entropy, (inputs[rows], targets[rows]), process_group=of)
        said[name] = [str(each.message) for each in caught]
    return said


def main(rank, port, folder):
    with joined(rank, port):
        group = dist.group.WORLD
        small = shares("mlp", group)
        found = {
            "refusals": refusals(rank, group),
            "warnings": warnings_of_data(rank, group),
            "block": Evaluator({"loss": small}, [], expected=200).block,
            **of_batch_norm(shares("cnn-batchnorm-dropout", group)),
            **of_noise(small),
        }
        torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(main, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_bends_and_recalibrated_statistics_are_those_of_all_samples(of_ranks):
    """Each rank took its own samples, so that the ranks had other control points, and losses of no one model."""
    alone = of_batch_norm(shares("cnn-batchnorm-dropout", None))
    for found in of_ranks:
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-12, err_msg=name)
    assert np.array_equal(of_ranks[0]["bend"], of_ranks[1]["bend"])


def test_ranks_with_unequal_shares_evaluate_as_many_points_at_a_time(of_ranks):
    """Each rank chose for itself, and sums over the ranks of unequal sizes ended the processes."""
    assert of_ranks[0]["block"] == of_ranks[1]["block"] > 1
    alone = of_noise(shares("mlp", None))
    for found in of_ranks:
        for name, value in alone.items():
            assert math.isclose(found[name], value, rel_tol=1e-9), name


@pytest.mark.parametrize("name", ["class weights", "an ignored label", "calibration"])
def test_what_the_samples_of_one_rank_do_not_allow_is_refused_on_both(name, of_ranks):
    """One rank raised an error, and the other waited for it until the time-out."""
    said = [found["refusals"][name] for found in of_ranks]
    assert said[0] == said[1]
    assert ("calibration: the ranks have" if name == "calibration" else "plain mean over samples") in said[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("the same samples in another order", "data: the ranks 0 and 1 hold the same 37 samples"),
        (
            "one share of a parallel model",
            "process_group: the model is under DistributedDataParallel with 2 ranks",
        ),
        ("samples that begin alike", None),
        ("shares of their own", None),
    ],
)
def test_ranks_that_do_not_measure_shares_of_their_own_are_warned(name, says, of_ranks):
    for found in of_ranks:
        said = found["warnings"][name]
        assert len(said) == (says is not None)
        assert not said or said[0].startswith(says)
