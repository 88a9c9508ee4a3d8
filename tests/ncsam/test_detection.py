"""Criteria of wrong labels, against cases made by hand."""

import csv
import math

import numpy as np
import pytest
import torch

from ncsam import (
    TrainingDynamics,
    confident_joint,
    detect,
    human_labels,
)
from ncsam.detection import (
    area_under_margin,
    early_learning_disagreement,
    forgetting_events,
    ranked,
    small_loss,
)
from ncsam.dynamics import Recorder

NAN = float("nan")


def dynamics(predictions, losses=None, margins=None):
    predicted = torch.tensor(predictions, dtype=torch.int16)
    zeros = torch.zeros(predicted.shape)
    return TrainingDynamics(
        zeros if losses is None else torch.tensor(losses),
        zeros if margins is None else torch.tensor(margins),
        predicted,
    )


@pytest.mark.parametrize(
    ("of_epochs", "events"),
    [
        # the label is 1
        ([1, 1, 1, 1], 0),
        ([0, 0, 1, 1], 0),
        ([1, 0, 1, 0], 2),
        ([1, 0, 0, 1], 1),
        ([0, 1, 2, 1], 1),
        # never learned: more than any other sample of four epochs can have
        ([0, 2, 0, 2], 4),
        # nothing is known
        ([-1, -1, -1, -1], NAN),
        # epochs without a prediction are left out
        ([1, 1, -1, -1], 0),
        ([1, -1, 0, 1], 1),
        ([1, -1, 1, 0], 1),
        ([-1, 0, -1, 0], 4),
    ],
)
def test_forgetting_events(of_epochs, events):
    found = forgetting_events(dynamics([[each] for each in of_epochs]), torch.tensor([1]))
    assert found.tolist() == pytest.approx([events], nan_ok=True)


def test_small_loss_and_area_under_the_margin_are_means_over_the_epochs():
    recorded = dynamics(
        [[0, 0, 0], [0, 0, 0]],
        losses=[[1.0, 0.5, NAN], [3.0, NAN, NAN]],
        margins=[[2.0, -1.0, NAN], [-1.0, NAN, NAN]],
    )
    assert small_loss(recorded).tolist() == pytest.approx([2, 0.5, NAN], nan_ok=True)
    assert area_under_margin(recorded).tolist() == pytest.approx([-0.5, 1, NAN], nan_ok=True)


@pytest.mark.parametrize("no_chance", [[-math.inf, 0.0], [0.0, math.inf]])
def test_a_label_that_was_once_given_no_chance_is_the_most_suspicious(no_chance):
    recorder = Recorder(torch.tensor([0, 0, 0]))
    recorder.record(torch.tensor([[0.0, 1.0], no_chance, [NAN, 0.0]]))
    recorder.record(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
    recorded = recorder.dynamics
    assert recorded.losses[0, 1] == math.inf
    found = detect(recorded, torch.tensor([0, 0, 0]))
    for criterion in ("small-loss", "area-under-margin"):
        assert found[criterion].scores[1] == math.inf, criterion
        assert found[criterion].order.tolist() == [1, 0, 2], criterion


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [
        ([math.inf, 0.0], 0),
        ([0.0, -math.inf], 0),
        ([0.0, math.inf], math.inf),
        ([math.inf, math.inf], NAN),
        ([-math.inf, -math.inf], NAN),
        ([math.inf, NAN], NAN),
    ],
)
def test_the_loss_of_infinite_outputs_is_its_limit_where_there_is_one(outputs, loss):
    recorder = Recorder(torch.tensor([0]))
    recorder.record(torch.tensor([outputs]))
    assert recorder.dynamics.losses.item() == pytest.approx(loss, nan_ok=True)


@pytest.mark.parametrize(
    ("early_share", "expected"), [(0.25, [0, 1, NAN]), (0.5, [0.5, 0.5, NAN]), (1, [0.25, 0.75, NAN])]
)
def test_early_learning_counts_the_early_epochs_that_disagree(early_share, expected):
    recorded = dynamics([[1, 0, -1], [2, 1, -1], [1, 0, -1], [1, 0, -1]])
    labels = torch.tensor([1, 1, 1])
    found = early_learning_disagreement(recorded, labels, early_share=early_share)
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("early_share", [0, -0.5, 1.5, NAN])
def test_a_share_out_of_range_is_refused(early_share):
    with pytest.raises(ValueError, match="^early_share"):
        detect(dynamics([[1]]), torch.tensor([1]), early_share=early_share)


def test_equal_scores_share_a_rank_and_missing_ones_come_last():
    found = ranked("any", [0.5, NAN, 2.0, 0.5, NAN, math.inf, -math.inf])
    assert found.ranks.tolist() == [3, 6, 2, 3, 6, 1, 5]
    assert found.order.tolist() == [5, 2, 0, 3, 6, 1, 4]


def test_labels_off_the_diagonal_of_the_confident_joint_come_first():
    # two classes, told apart well, and two samples with the other's label
    chances = torch.tensor([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    labels = torch.tensor([0] * 9 + [1] + [1] * 9 + [0])
    found = confident_joint(chances, labels)
    assert found.is_flagged.nonzero().flatten().tolist() == [9, 19]
    assert found.joint.tolist() == [
        [pytest.approx(0.45), pytest.approx(0.05)],
        [pytest.approx(0.05), pytest.approx(0.45)],
    ]
    assert found.noise_rate == pytest.approx(0.1)
    assert sorted(ranked("joint", found.scores).order[:2].tolist()) == [9, 19]
    assert detect(None, labels, probabilities=chances).proposed[[9, 19]].tolist() == [0, 1]


@pytest.mark.parametrize(
    "chances", [torch.ones(3, 2), torch.full((3, 2), NAN), torch.zeros(2, 2), torch.tensor([[2.0, -1.0]] * 3)]
)
def test_probabilities_that_are_none_are_refused(chances):
    with pytest.raises(ValueError, match="^probabilities"):
        confident_joint(chances, torch.tensor([0, 1, 0]))


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (torch.tensor([0, -100, 1]), r"^labels: -100 is none of the 2 classes .*; leave samples without"),
        (torch.tensor([0, 5, 1]), r"^labels: 5 is none of the 2 classes"),
        (torch.tensor([0.0, 1.0, 1.0]), r"^labels: must be classes, .*; give labels\.long\(\)$"),
        (torch.tensor([[0], [1], [1]]), r"^labels: must be classes, .*; give labels\.flatten\(\)$"),
    ],
)
def test_labels_that_are_no_classes_of_the_probabilities_are_refused(labels, remedy):
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    for act in (confident_joint, lambda chances, labels: detect(None, labels, probabilities=chances)):
        with pytest.raises(ValueError, match=remedy):
            act(chances, labels)


def test_a_sample_without_a_label_has_no_score_and_counts_in_no_class():
    chances = torch.tensor([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    labels = torch.tensor([-100] + [0] * 8 + [1] + [1] * 9 + [0])
    given = human_labels(labels, labels, num_classes=2, ignore_index=-100)
    scores = detect(None, given, probabilities=chances)["confident-joint"].scores
    assert np.isnan(scores[0])
    assert scores[1:].tolist() == confident_joint(chances[1:], labels[1:]).scores.tolist()


def test_the_early_epochs_vote_for_a_label():
    recorded = dynamics([[2, 1, -1], [2, 0, -1], [1, 0, -1], [0, 0, -1]])
    found = detect(recorded, torch.tensor([0, 0, 0]), early_share=0.75)
    assert found.proposed.tolist() == [2, 0, -1]


def test_measures_alone_are_ranked_too():
    found = detect({"curvature": np.array([0.1, 3.0, 2.0])}, torch.tensor([0, 1, 1]), ids=["a", "b", "c"])
    assert found.criteria == ("curvature",)
    assert found.ids[found["curvature"].order].tolist() == ["b", "c", "a"]
    assert found.proposed.tolist() == [-1, -1, -1]
    with pytest.raises(KeyError, match="must be one of curvature"):
        found["loss"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, torch.tensor([0])), {}, ValueError, "^evidence: there is none"),
        ((3, torch.tensor([0])), {}, TypeError, "^evidence: must be a History"),
        ((dynamics([[1, 1]]), torch.tensor([0])), {}, ValueError, "^evidence: is of 2 samples"),
        (({"a": [1.0, 2.0]}, torch.tensor([0])), {}, ValueError, "^measures: a: is of 2 samples"),
        (({"a": [1.0]}, torch.tensor([0])), {"ids": [1, 2]}, ValueError, "^ids"),
        (
            ({"a": [1.0]}, torch.tensor([0])),
            {"measures": {"a": [1.0]}},
            ValueError,
            "^measures: 'a' is among the evidence too",
        ),
        (
            (dynamics([[1]]), torch.tensor([0])),
            {"measures": {"small-loss": [1.0]}},
            ValueError,
            "^measures: 'small-loss' is the name of another criterion",
        ),
    ],
)
def test_evidence_that_does_not_fit_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        detect(*arguments, **options)


def test_the_table_holds_every_sample_the_most_suspicious_first(tmp_path):
    found = detect({"a": [1.0, NAN, 3.0], "b": [2.0, 1.0, 0.0]}, torch.tensor([4, 5, 6]))
    found.write_csv(tmp_path / "table.csv")
    rows = list(csv.reader((tmp_path / "table.csv").open()))
    assert rows[0] == ["id", "label", "proposed", "a score", "a rank", "b score", "b rank"]
    assert rows[1:] == [
        ["2", "6", "-1", "3", "1", "0", "3"],
        ["0", "4", "-1", "1", "2", "2", "1"],
        ["1", "5", "-1", "nan", "3", "1", "2"],
    ]
    found.write_csv(tmp_path / "table.csv", by="b")
    assert [row[0] for row in csv.reader((tmp_path / "table.csv").open())] == ["id", "0", "1", "2"]
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
