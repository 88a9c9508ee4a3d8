"""Criteria of wrong labels, against cases made by hand, and how well they find planted ones."""

import csv
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from ncsam import (
    SAM,
    Plain,
    Split,
    TrainingDynamics,
    build_model,
    confident_joint,
    corrupt_labels,
    cross_validated_probabilities,
    detect,
    fit,
    load_dataset,
)
from ncsam.detection import (
    area_under_margin,
    early_learning_disagreement,
    forgetting_events,
    quality_of,
    ranked,
    small_loss,
    training_fingerprint,
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


def test_quality_of_an_order_that_can_be_counted_by_hand():
    # of the six pairs of a wrong and a right label, four are in order and one is equal
    scores, is_wrong = [4.0, 3.0, 3.0, 2.0, 1.0], [True, False, True, False, False]
    found = quality_of(ranked("any", scores), is_wrong)
    assert found.auroc.value == pytest.approx((3 + 2 + 0.5) / 6)
    # the cut after two falls into two equal scores, one of which is wrong
    assert found.precision_at_rate.value == pytest.approx((1 + 0.5) / 2)
    assert (found.wrong, found.samples, found.unscored) == (2, 5, 0)
    from sklearn.metrics import average_precision_score, roc_auc_score

    assert found.average_precision.value == pytest.approx(average_precision_score(is_wrong, scores))
    assert found.auroc.value == pytest.approx(roc_auc_score(is_wrong, scores))


def test_samples_without_a_score_are_left_out_and_counted():
    scores, is_wrong = [NAN, 4.0, 3.0, 2.0, 1.0, NAN], [True, True, True, False, False, False]
    found = quality_of(ranked("any", scores), is_wrong)
    assert (found.samples, found.unscored, found.auroc.value) == (4, 2, 1)
    with pytest.raises(ValueError, match=r"^is_wrong: 1 of 3 labels"):
        quality_of(ranked("any", [NAN, 2.0, 1.0, 0.0]), [True, True, False, False])
    with pytest.raises(ValueError, match=r"^is_wrong: must be \(2,\)"):
        quality_of(ranked("any", [1.0, 2.0]), [True])


def normal_quality(rate, distance):
    """AUROC, average precision and precision at the rate of normal scores, of endless many samples."""
    thresholds = np.linspace(-9, 9 + distance, 200_001)
    recall, others = norm.sf(thresholds - distance), norm.sf(thresholds)
    precision = rate * recall / (rate * recall + (1 - rate) * others)
    at_rate = np.argmin(np.abs(rate * recall + (1 - rate) * others - rate))
    return norm.cdf(distance / math.sqrt(2)), -np.trapezoid(precision, recall), precision[at_rate]


@pytest.mark.parametrize(
    ("wrong", "right", "distance", "most"),
    [
        # the last: how much wider than the middle 95% of the numbers themselves an interval may be
        (30, 120, 1, 1.3),
        (30, 120, 2, 1.4),
        (30, 120, 3, 1.9),
        (5, 20, 1, 1.2),
        (5, 20, 2, 1.6),
        (5, 20, 3, 3),
        (60, 40, 1, 2.2),
        (60, 40, 2, 2.2),
        (60, 40, 3, 4.5),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say_and_are_not_idle(wrong, right, distance, most):
    generator, runs = np.random.default_rng(0), 300
    truth = normal_quality(wrong / (wrong + right), distance)
    is_wrong = np.arange(wrong + right) < wrong
    found = []
    for _ in range(runs):
        quality = quality_of(
            ranked("any", generator.normal(size=len(is_wrong)) + distance * is_wrong), is_wrong
        )
        numbers = (quality.auroc, quality.average_precision, quality.precision_at_rate)
        found.append([(each.value, each.low, each.high) for each in numbers])
    value, low, high = np.moveaxis(np.array(found), 2, 0)
    hits = ((low <= truth) & (truth <= high)).mean(0)
    assert (hits >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)).all(), hits
    spread = np.quantile(value, 0.975, axis=0) - np.quantile(value, 0.025, axis=0)
    width = (high - low).mean(0)
    assert (width < most * spread).all(), width / spread


@pytest.mark.parametrize(("wrong", "right"), [(2, 2), (2, 200), (30, 120)])
def test_an_order_without_a_fault_may_be_chance(wrong, right):
    is_wrong = np.arange(wrong + right) < wrong
    perfect = quality_of(ranked("any", 1.0 * is_wrong), is_wrong)
    for found in (perfect.auroc, perfect.average_precision, perfect.precision_at_rate):
        assert (found.value, found.high) == (1, pytest.approx(1))
        assert 0.2 < found.low < 1 - 1 / (wrong + right)
    reverse = quality_of(ranked("any", -1.0 * is_wrong), is_wrong).auroc
    assert (reverse.value, reverse.low, reverse.high) == (0, 0, pytest.approx(1 - perfect.auroc.low))


def test_scores_that_are_all_equal_have_an_interval_too():
    found = quality_of(ranked("any", np.zeros(20)), np.arange(20) < 10).auroc
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7


@pytest.fixture(scope="module")
def planted():
    data = load_dataset("digits")
    return data, corrupt_labels(data.train.targets, kind="symmetric", rate=0.2, seed=0)


def build(data):
    def of_fold(fold):
        model = build_model("mlp", data.input_shape, data.num_classes, seed=fold, hidden=[64])
        method = Plain(model, nn.CrossEntropyLoss())
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)

    return of_fold


def test_planted_wrong_labels_are_found(planted):
    data, labels = planted
    method, optimizer = build(data)(0)
    history = fit(
        method,
        optimizer,
        data.train,
        labels,
        data.test,
        epochs=10,
        batch_size=64,
        seed=0,
        record_samples=True,
    )
    found = detect(history, labels)
    quality = {each.criterion: each for each in found.quality(labels.is_wrong)}
    for criterion in ("small-loss", "area-under-margin", "early-learning"):
        assert quality[criterion].auroc.low > 0.9, criterion
        assert quality[criterion].precision_at_rate.value > 0.8
    # the truth is not read: labels without one give the same
    assert (
        found["small-loss"].scores.tolist() == detect(history, labels.observed)["small-loss"].scores.tolist()
    )
    wrong = labels.is_wrong.numpy()
    assert (found.proposed == labels.clean.numpy())[wrong].mean() > 0.8


def test_cross_validated_probabilities_are_of_networks_that_did_not_see_the_sample(planted, tmp_path):
    data, labels = planted
    settings = {"epochs": 4, "batch_size": 64, "seed": 0, "folds": 3}
    seen = []
    chances = cross_validated_probabilities(
        data.train, labels, build(data), **settings, checkpoints=tmp_path, on_fold=seen.append
    )
    assert seen == [1, 2, 3]
    torch.testing.assert_close(chances.sum(1), torch.ones(len(chances)))
    found = detect(None, labels, probabilities=chances)
    (quality,) = found.quality(labels.is_wrong)
    assert quality.auroc.low > 0.9
    assert confident_joint(chances, labels.observed).noise_rate == pytest.approx(0.2, abs=0.05)
    # finished trainings are not done again
    again = cross_validated_probabilities(data.train, labels, build(data), **settings, checkpoints=tmp_path)
    assert torch.equal(again, chances)


def of_another_rate(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        return method, torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)

    return of_fold, data.train, labels


def of_another_optimizer(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        return method, torch.optim.Adam(method.parameters(), lr=0.05)

    return of_fold, data.train, labels


def of_other_weights(build_fold, data, labels):
    return lambda fold: build_fold(fold + 1), data.train, labels


def of_another_method(build_fold, data, labels):
    def of_fold(fold):
        method, _ = build_fold(fold)
        method = SAM(method.model, method.loss_fn, rho=0.1)
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)

    return of_fold, data.train, labels


def of_another_loss(build_fold, data, labels):
    def of_fold(fold):
        method, optimizer = build_fold(fold)
        return Plain(method.model, nn.CrossEntropyLoss(label_smoothing=0.1)), optimizer

    return of_fold, data.train, labels


def of_other_pixels(build_fold, data, labels):
    pixels = data.train.pixels.clone()
    pixels.flatten()[7] += 1
    return build_fold, Split(pixels, data.train.targets, data.train.mean, data.train.std), labels


def of_other_labels(build_fold, data, labels):
    return build_fold, data.train, corrupt_labels(labels.clean, kind="symmetric", rate=0.2, seed=1)


@pytest.mark.parametrize(
    "other",
    [
        of_another_rate,
        of_another_optimizer,
        of_other_weights,
        of_another_method,
        of_another_loss,
        of_other_pixels,
        of_other_labels,
    ],
)
def test_folds_of_another_training_are_refused(planted, tmp_path, other):
    data, labels = planted
    settings = {"epochs": 1, "batch_size": 256, "seed": 0, "folds": 2, "checkpoints": tmp_path}
    cross_validated_probabilities(data.train, labels, build(data), **settings)
    build_other, train, observed = other(build(data), data, labels)
    with pytest.raises(ValueError, match=r"^checkpoint: .*fold-0.pt belongs to other settings"):
        cross_validated_probabilities(train, observed, build_other, **settings)


def test_options_of_a_method_and_of_a_loss_are_in_its_fingerprint(planted):
    data, labels = planted
    model = build(data)(0)[0].model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    smoothed = partial(nn.functional.cross_entropy, label_smoothing=0.1)
    methods = [
        Plain(model, nn.functional.cross_entropy),
        Plain(model, smoothed),
        SAM(model, smoothed, rho=0.1),
        SAM(model, smoothed, rho=0.2),
    ]
    found = [training_fingerprint(each, optimizer, data.train, labels.observed) for each in methods]
    assert len(set(found)) == len(methods)
    assert training_fingerprint(methods[0], optimizer, data.train, labels.observed) == found[0]


def test_folds_and_divergence_are_refused_by_name(planted):
    data, labels = planted
    settings = {"epochs": 1, "batch_size": 64, "seed": 0}
    with pytest.raises(ValueError, match="^folds: must be from 2"):
        cross_validated_probabilities(data.train, labels, build(data), folds=1, **settings)

    def diverges(fold):
        method, _ = build(data)(fold)
        return method, torch.optim.SGD(method.parameters(), lr=1e30)

    with pytest.raises(ValueError, match="^build: the training without fold 0 diverged"):
        cross_validated_probabilities(data.train, labels, diverges, folds=2, **settings)


def test_a_training_that_diverged_is_no_evidence(planted):
    data, labels = planted
    method, _ = build(data)(0)
    history = fit(
        method,
        torch.optim.SGD(method.parameters(), lr=1e30),
        data.train,
        labels,
        data.test,
        epochs=1,
        batch_size=512,
        seed=0,
        record_samples=True,
    )
    with pytest.raises(ValueError, match=r"^evidence: the training diverged"):
        detect(history, labels)


def test_a_history_without_samples_is_refused(planted):
    data, labels = planted
    method, optimizer = build(data)(0)
    history = fit(method, optimizer, data.train, labels, data.test, epochs=1, batch_size=512, seed=0)
    with pytest.raises(ValueError, match=r"^evidence: .*record_samples=True"):
        detect(history, labels)
