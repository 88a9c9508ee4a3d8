import pytest
import scipy.stats
import torch

from ncsam import corrupt_labels

targets = torch.arange(1000) % 10


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.333, 0.6, 0.999])
def test_the_realised_rate_is_the_asked_one(rate):
    labels = corrupt_labels(targets, rate=rate, seed=1)
    assert int(labels.is_wrong.sum()) == round(1000 * rate)
    assert labels.realised_rate == pytest.approx(rate, abs=0.5 / 1000)
    assert torch.equal(labels.clean, targets)
    torch.testing.assert_close(labels.transition.sum(1), torch.ones(10, dtype=torch.float64))


def test_wrong_labels_are_uniform_over_the_other_classes():
    many = torch.full((20_000,), 3)
    labels = corrupt_labels(many, rate=0.9, seed=0, num_classes=10)
    counts = labels.observed[labels.is_wrong].bincount(minlength=10).tolist()
    assert counts.pop(3) == 0
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_seeds_decide_the_draw():
    first, again, other = (corrupt_labels(targets, rate=0.4, seed=s).observed for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": -0.1}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"kind": "asymetric"}, "kind"),
        ({"num_classes": 5}, "targets"),
        ({"targets": torch.zeros(3)}, "targets"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "num_classes"),
    ],
)
def test_bad_arguments_are_named(change, field):
    arguments = {"targets": targets, "rate": 0.2, "seed": 0, **change}
    with pytest.raises(ValueError, match=f"^{field}"):
        corrupt_labels(arguments.pop("targets"), **arguments)
