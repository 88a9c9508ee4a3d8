"""Label noise on labels of positions, such as tokens or pixels, some of which the loss ignores."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

from ncsam import corrupt_labels, human_labels
from tests.ncsam.noisy_labels import probabilities

IGNORED = -100
LABELS = (torch.arange(600) * 7 % 5).view(60, 10)
PADDED = LABELS.masked_fill(torch.arange(10) >= 1 + torch.arange(60).unsqueeze(1) % 10, IGNORED)
IS_LABEL = PADDED != IGNORED


def corrupt(targets=PADDED, kind="symmetric", rate=0.4, seed=0, **options):
    return corrupt_labels(targets, kind=kind, rate=rate, seed=seed, ignore_index=IGNORED, **options)


@pytest.mark.parametrize("kind", ["symmetric", "pair", "symmetric-all"])
def test_positions_with_a_label_are_those_of_one_long_list(kind):
    found, expected = corrupt(kind=kind), corrupt(PADDED[IS_LABEL], kind=kind)
    assert torch.equal(found.observed[IS_LABEL], expected.observed)
    assert torch.equal(found.observed[~IS_LABEL], PADDED[~IS_LABEL])
    assert torch.equal(found.clean, PADDED)
    assert torch.equal(found.transition, expected.transition)
    assert found.realised_rate == expected.realised_rate


def test_only_positions_with_both_labels_can_be_wrong():
    given = PADDED.clone()
    given[0, 0], given[1, 1], given[0, 9] = (int(PADDED[0, 0]) + 1) % 5, IGNORED, 3
    labels = human_labels(PADDED, given, ignore_index=IGNORED)
    assert labels.is_wrong.nonzero().tolist() == [[0, 0]]
    assert labels.realised_rate == labels.rate == 1 / (int(IS_LABEL.sum()) - 1)
    assert torch.equal(labels.observed, given)


def test_where_nothing_has_both_labels_no_share_is_wrong():
    labels = human_labels(PADDED, PADDED.roll(1, 0), num_classes=5, ignore_index=IGNORED)
    nothing = labels.take(torch.tensor([0]))
    nothing.observed[0, 0] = IGNORED
    assert not nothing.is_wrong.any()
    assert math.isnan(nothing.realised_rate)


def test_redrawn_labels_of_positions_follow_the_transition_and_leave_ignored_ones():
    targets = torch.cat([torch.full((40, 250), 2), torch.full((40, 250), IGNORED)], 1)
    labels = corrupt(targets, num_classes=5)
    drawn = labels.redrawn(torch.arange(40), torch.Generator().manual_seed(1))
    assert drawn.shape == targets.shape
    assert (drawn[:, 250:] == IGNORED).all()
    counts = drawn[:, :250].flatten().bincount(minlength=5) / 10_000
    torch.testing.assert_close(counts.double(), labels.transition[2], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: corrupt_labels(PADDED, rate=0.4, seed=0),
            "targets: labels must lie .* give it as ignore_index",
        ),
        (lambda: corrupt(LABELS, "beta"), "kind: 'beta' draws a label for each sample"),
        (lambda: corrupt(PADDED[:, 1], "pmd", posterior=probabilities(60, 5)), "kind: 'pmd' draws a label"),
        (lambda: corrupt(torch.full((3, 4), IGNORED)), "targets: no place has a label"),
        (lambda: corrupt(PADDED.int()), "targets: must be int64 of shape"),
        (
            lambda: corrupt_labels(LABELS, rate=0.4, seed=0, ignore_index=0),
            "ignore_index: 0 is one of the 5 classes",
        ),
        (lambda: corrupt(one_hot(LABELS[:, 0], 5)), "targets: are rows of zeros and a single one"),
        (lambda: corrupt(one_hot(LABELS[:, 0], 5), num_classes=5), "targets: are rows of zeros"),
        (lambda: corrupt(torch.tensor(3)), "targets: must be int64 of shape"),
        (lambda: human_labels(PADDED, PADDED.T, ignore_index=IGNORED), r"observed: .* \(60, 10\)"),
        (
            lambda: human_labels(one_hot(LABELS[:, 0], 5), one_hot(LABELS[:, 0], 5)),
            r"clean: .*; clean\.argmax",
        ),
        (lambda: human_labels(PADDED, PADDED), "observed: labels must lie|clean: labels must lie"),
    ],
)
def test_labels_that_cannot_be_corrupted_are_refused(call, words):
    with pytest.raises(ValueError, match=f"^({words})"):
        call()
