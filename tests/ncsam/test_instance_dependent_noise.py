"""Label noise that depends on the sample: part-dependent, PMD and Beta with a posterior."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from ncsam import corrupt_labels
from ncsam.label_noise import part_dependent
from tests.ncsam.noisy_labels import corrupt, pixels, probabilities, targets


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.9])
def test_part_dependent_flip_rates_are_truncated_normal(rate):
    drawn = part_dependent.truncated_normal(5000, rate, 0.1, torch.Generator().manual_seed(0))
    truth = scipy.stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
    assert scipy.stats.kstest(drawn.numpy(), truth.cdf).pvalue > 1e-3


def test_part_dependent_wrong_labels_follow_the_softmax_of_projected_pixels(monkeypatch):
    generator = np.random.default_rng(0)
    projections = generator.normal(size=(4, 6, 4))
    unused = iter(projections)
    monkeypatch.setattr(part_dependent, "normal", lambda *_: torch.from_numpy(next(unused)))
    image = generator.normal(size=6)
    labels = corrupt_labels(
        torch.full((20_000,), 2),
        kind="part-dependent",
        rate=0.5,
        seed=0,
        num_classes=4,
        inputs=torch.from_numpy(image).expand(20_000, 6),
    )
    scores = image @ projections[2]
    expected = 10_000 * scipy.special.softmax(scores[[0, 1, 3]])
    counts = labels.observed[labels.is_wrong].bincount(minlength=4)[[0, 1, 3]]
    assert scipy.stats.chisquare(counts.tolist(), expected).pvalue > 1e-3


def test_part_dependent_noise_mislabels_like_images_alike():
    images = pixels(1000)
    images[:500] = images[0]
    labels = corrupt("part-dependent", clean=torch.zeros(1000, dtype=torch.int64), inputs=images)
    wrong = labels.observed[:500][labels.is_wrong[:500]]
    # on bytes the largest score is hundreds above the next
    assert len(wrong) > 100
    assert len(wrong.unique()) == 1


PMD = {1: lambda m: (1 - m**2) / 2, 2: lambda m: 1 - m**3, 3: lambda m: 1 - (m**3 + m**2 + m) / 3}


@pytest.mark.parametrize("pmd_type", PMD)
def test_pmd_flips_in_proportion_to_its_polynomial_of_the_margin(pmd_type):
    # (margin, how many): the true class is the most probable
    groups = ((0.1, 10_000), (0.6, 10_000), (1.0, 500))
    rows = [[(1 + m) / 2, (1 - m) / 2, 0.0] for m, n in groups for _ in range(n)]
    clean = torch.zeros(20_500, dtype=torch.int64)
    labels = corrupt("pmd", clean, 0.2, classes=3, posterior=torch.tensor(rows), pmd_type=pmd_type)
    assert set(labels.observed.unique().tolist()) == {0, 1}
    near, far, certain = (part.sum().item() for part in labels.is_wrong.split([n for _, n in groups]))
    assert certain == 0
    weights = [PMD[pmd_type](m) for m in (0.1, 0.6)]
    assert scipy.stats.binomtest(near, near + far, weights[0] / sum(weights)).pvalue > 1e-3


def test_pmd_mistakes_a_sample_for_the_most_probable_other_class():
    posterior = probabilities()
    labels = corrupt("pmd", rate=0.9)
    for row, clean, observed in zip(posterior, labels.clean, labels.observed, strict=True):
        others = [label for label in range(10) if label != clean]
        assert observed in (clean, max(others, key=lambda label: row[label]))


def test_pmd_says_how_many_samples_it_can_flip():
    posterior = torch.eye(10)[targets]
    posterior[:100] = 0.1
    with pytest.raises(ValueError, match="^rate: asks for 400 wrong labels where only 100 samples"):
        corrupt("pmd", posterior=posterior)
    assert corrupt("pmd", posterior=posterior, rate=0.1).is_wrong[:100].all()
    assert not corrupt("pmd", posterior=torch.eye(10)[targets], rate=0.0).is_wrong.any()


def test_beta_noise_with_a_posterior_flips_the_samples_that_are_hardest():
    posterior = probabilities()
    # so little concentrated, each probability is next to 0 or to 1
    labels = corrupt("beta", rate=0.3, concentration=1e-3, posterior=posterior)
    true_class = posterior.gather(1, targets.unsqueeze(1)).flatten()
    assert int(labels.is_wrong.sum()) == 300
    assert true_class[labels.is_wrong].max() < true_class[~labels.is_wrong].quantile(0.1)


def test_beta_noise_with_a_posterior_draws_the_wrong_label_from_it():
    row = torch.tensor([0.4, 0.3, 0.2, 0.1])
    clean = torch.ones(20_000, dtype=torch.int64)
    labels = corrupt("beta", clean, 0.5, classes=4, posterior=row.expand(20_000, 4))
    counts = labels.observed[labels.is_wrong].bincount(minlength=4)[[0, 2, 3]]
    expected = 10_000 * np.array([0.4, 0.2, 0.1]) / 0.7
    assert scipy.stats.chisquare(counts.tolist(), expected).pvalue > 1e-3
