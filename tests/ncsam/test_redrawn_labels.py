"""Label noise that each training step draws anew."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from ncsam import Plain, Split, corrupt_labels, fit, human_labels

CLASSES, COUNT = 4, 60
clean = torch.arange(COUNT) % CLASSES
pixels = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(0))
posterior = torch.rand(COUNT, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)
TRANSITION = [[0.7, 0.2, 0.1, 0.0], [0.0, 1.0, 0.0, 0.0], [0.1, 0.1, 0.5, 0.3], [0.2, 0.2, 0.2, 0.4]]
KINDS = {
    "symmetric": {"rate": 0.4},
    "symmetric-all": {"rate": 0.4},
    "pair": {"rate": 0.3},
    "matrix": {"transition": TRANSITION},
    "part-dependent": {"rate": 0.4, "inputs": pixels},
    "pmd": {"rate": 0.3, "posterior": posterior},
    "beta": {"rate": 0.4, "posterior": posterior},
}


def corrupted(kind, seed=0):
    return corrupt_labels(clean, kind=kind, seed=seed, num_classes=CLASSES, **KINDS[kind])


def redraws(labels, times, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([labels.redrawn(torch.arange(COUNT), generator) for _ in range(times)])


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("symmetric", torch.full((4, 4), 0.4 / 3).fill_diagonal_(0.6)),
        ("symmetric-all", torch.full((4, 4), 0.1).fill_diagonal_(0.7)),
        ("pair", 0.7 * torch.eye(4) + 0.3 * torch.eye(4).roll(1, 1)),
        ("matrix", torch.tensor(TRANSITION)),
    ],
)
def test_labels_are_redrawn_by_the_row_of_the_transition_matrix_that_is_the_samples_true_class(kind, rows):
    found = redraws(corrupted(kind), 1000)
    for label in range(CLASSES):
        counts = found[:, clean == label].flatten().bincount(minlength=CLASSES).numpy()
        expected = rows[label].double().numpy() * counts.sum()
        possible = expected > 0
        assert counts[~possible].sum() == 0
        if possible.sum() > 1:
            assert scipy.stats.chisquare(counts[possible], expected[possible], sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["part-dependent", "pmd", "beta"])
def test_a_samples_labels_are_redrawn_with_the_chances_that_its_first_draw_had(kind):
    # seed by seed the first draw's own flip rates differ: the mean over seeds of what it draws and of what is redrawn
    first, again = torch.zeros(COUNT, CLASSES), torch.zeros(COUNT, CLASSES)
    for seed in range(400):
        labels = corrupted(kind, seed)
        first += nn.functional.one_hot(labels.observed, CLASSES)
        again += nn.functional.one_hot(redraws(labels, 1, seed)[0], CLASSES)
        torch.testing.assert_close(labels.probabilities.sum(1), torch.ones(COUNT, dtype=torch.float64))
        wrong = 1 - labels.probabilities.gather(1, clean.unsqueeze(1)).sum() / COUNT
        assert wrong.item() == pytest.approx(KINDS[kind]["rate"], abs=1e-9)
    # two counts of 400 draws each: their difference has at most the variance 2 * 400 / 4
    difference = (first - again) / np.sqrt(200)
    assert difference.abs().max() < 4.5
    assert difference.square().mean() < 1.1


def test_pmd_redraws_the_most_probable_wrong_label_and_no_other():
    labels = corrupted("pmd")
    found = redraws(labels, 50)
    wrong = posterior.scatter(1, clean.unsqueeze(1), 0.0).argmax(1)
    assert ((found == clean) | (found == wrong)).all()


def test_redrawn_labels_are_independent_between_draws_and_repeat_with_the_seed():
    labels = corrupted("symmetric")
    is_wrong = (redraws(labels, 2000) != clean).double()
    correlation = np.corrcoef(is_wrong[:-1].flatten(), is_wrong[1:].flatten())[0, 1]
    assert abs(correlation) < 0.02
    assert torch.equal(redraws(labels, 3), redraws(labels, 3))
    assert not torch.equal(redraws(labels, 3), redraws(labels, 3, seed=6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_labels_is_redrawn_as_its_samples_are_in_the_whole(kind):
    labels, part = corrupted(kind), torch.tensor([7, 2, 33])
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = labels.redrawn(part, one)
    assert torch.equal(labels.take(part).redrawn(torch.arange(3), other), expected)


def test_a_rate_of_zero_leaves_the_true_labels():
    labels = corrupt_labels(clean, kind="symmetric", rate=0.0, seed=0)
    assert torch.equal(redraws(labels, 20), clean.expand(20, -1))


def test_labels_that_people_gave_cannot_be_redrawn():
    labels = human_labels(clean, (clean + 1) % CLASSES)
    with pytest.raises(
        ValueError, match="^redraw: labels of kind 'human' come from no model .* kind = \"matrix\""
    ):
        trained(labels)
    with pytest.raises(ValueError, match="^redraw: must be 'never' or 'step', got 'epoch'"):
        trained(corrupted("pair"), redraw="epoch")


class Recording(Plain):
    """Ordinary gradients; keeps the labels that it was given."""

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Linear(3, CLASSES), nn.CrossEntropyLoss())
        self.seen = []

    def fill_own_gradients(self, inputs, targets, indices):
        self.seen.append((indices.clone(), targets.clone()))
        return super().fill_own_gradients(inputs, targets, indices)


def trained(labels, epochs=4, redraw="step", **options):
    method = Recording()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    split = Split(pixels, clean)
    history = fit(
        method,
        optimizer,
        split,
        labels,
        split,
        epochs=epochs,
        batch_size=16,
        seed=0,
        redraw=redraw,
        **options,
    )
    return history, method


def test_training_sees_other_labels_in_each_epoch_at_the_same_rate_and_is_evaluated_on_one_draw():
    labels = corrupted("symmetric")
    history, method = trained(labels, epochs=100)
    by_epoch = torch.empty(100, COUNT, dtype=torch.int64)
    for step, (indices, targets) in enumerate(method.seen):
        by_epoch[step // 4, indices] = targets
    assert (by_epoch != clean).double().mean().item() == pytest.approx(0.4, abs=0.02)
    assert (by_epoch[1:] != by_epoch[:-1]).double().mean() > 0.4
    with torch.no_grad():
        outputs = method.model(pixels)
    expected = nn.functional.cross_entropy(outputs, labels.observed).item()
    assert history.metrics["train_loss"][-1] == pytest.approx(expected)


def test_the_order_of_samples_is_that_of_a_run_whose_labels_stay():
    (_, stays), (_, redrawn) = (trained(corrupted("pair"), redraw=redraw) for redraw in ("never", "step"))
    for (first, given), (second, targets) in zip(stays.seen, redrawn.seen, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(given, corrupted("pair").observed[first])
        assert not torch.equal(targets, given)


def test_a_killed_run_with_redrawn_labels_resumes_to_the_same_bits(tmp_path):
    whole = trained(corrupted("beta"))[1]

    class Killed(Exception):
        pass

    def kill(epoch, *_):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(corrupted("beta"), checkpoint=tmp_path / "run.ckpt", on_epoch=kill)
    resumed = trained(corrupted("beta"), checkpoint=tmp_path / "run.ckpt")[1]
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(resumed.seen, whole.seen[8:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "form",
    [torch.Tensor.tolist, np.asarray, lambda rows: torch.isin(torch.arange(COUNT), rows)],
    ids=["list", "array", "mask"],
)
def test_samples_are_taken_by_indices_of_any_form(kind, form):
    labels, rows = corrupted(kind), torch.tensor([2, 7, 33])
    found, expected = labels.take(form(rows)), labels.take(rows)
    assert torch.equal(found.observed, expected.observed)
    assert torch.equal(found.clean, expected.clean)
    if expected.probabilities is not None:
        assert torch.equal(found.probabilities, expected.probabilities)


def measured_anew(labels):
    """Human labels of these samples alone."""
    return human_labels(labels.clean, labels.observed, CLASSES)


def test_the_wrong_ones_among_human_labels_are_all_wrong():
    labels = human_labels(clean, corrupted("symmetric").observed)
    wrong = labels.take(labels.is_wrong)
    assert wrong.rate == wrong.realised_rate == 1.0
    assert torch.equal(wrong.transition, measured_anew(wrong).transition)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_model_of_the_noise_says_is_kept_of_taken_samples_and_what_was_measured_is_not(kind):
    labels = corrupted(kind)
    taken = labels.take(torch.arange(30))
    assert taken.rate == KINDS[kind].get("rate", taken.realised_rate)
    expected = labels if labels.transition_kind == "expected" else measured_anew(taken)
    assert torch.equal(taken.transition, expected.transition)


def test_ignored_positions_are_no_part_of_taken_shares():
    given = torch.tensor([[0, 1, -100], [1, 1, 0], [-100, -100, -100]])
    taken = human_labels(given, given.roll(1, 0), num_classes=2, ignore_index=-100).take([1])
    assert taken.transition.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert taken.rate == 0.5
