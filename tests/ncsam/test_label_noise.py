"""Kinds of label noise: their rates, transitions, seeds and errors."""

import hashlib
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from ncsam import NOISE_KINDS, corrupt_labels
from ncsam.label_noise import TRANSITION_MATRICES, human_labels, noise_options
from ncsam.label_noise.maps import CIFAR100_SUPERCLASSES
from tests.ncsam.noisy_labels import corrupt, pixels, probabilities, targets

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

INSTANCE_KINDS = ("part-dependent", "pmd", "beta")


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.333, 0.6, 0.999])
@pytest.mark.parametrize("kind", ["symmetric", "pair", *INSTANCE_KINDS])
def test_the_realized_rate_is_the_asked_one(kind, rate):
    labels = corrupt(kind, rate=rate, seed=1)
    assert int(labels.is_wrong.sum()) == round(1000 * rate)
    assert labels.realised_rate == pytest.approx(rate, abs=0.5 / 1000)
    assert torch.equal(labels.clean, targets)
    torch.testing.assert_close(labels.transition.sum(1), torch.ones(10, dtype=torch.float64))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.45, 0.999])
def test_symmetric_noise_over_all_classes_spares_the_share_that_meets_its_true_class(rate):
    labels = corrupt("symmetric-all", rate=rate)
    assert int(labels.is_wrong.sum()) == round(1000 * rate * 0.9)
    assert labels.rate == rate
    expected = torch.full((10, 10), rate / 10, dtype=torch.float64) + (1 - rate) * torch.eye(10).double()
    torch.testing.assert_close(labels.transition, expected)


@pytest.mark.parametrize("kind", ["symmetric", "symmetric-all", "beta"])
def test_wrong_labels_are_uniform_over_the_other_classes(kind):
    labels = corrupt(kind, clean=torch.full((20_000,), 3), rate=0.9)
    counts = labels.observed[labels.is_wrong].bincount(minlength=10).tolist()
    assert counts.pop(3) == 0
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_asymmetric_noise_is_cifar_10s_published_map():
    labels = corrupt("asymmetric", rate=0.33)
    mistakes = {
        (CIFAR10[a], CIFAR10[b])
        for a, b in zip(labels.clean[labels.is_wrong], labels.observed[labels.is_wrong], strict=True)
    }
    assert mistakes == {
        ("truck", "automobile"),
        ("bird", "airplane"),
        ("deer", "horse"),
        ("cat", "dog"),
        ("dog", "cat"),
    }
    # of the 500 samples whose class has a wrong one
    assert int(labels.is_wrong.sum()) == 165
    assert labels.transition[9, 1] == 0.33
    assert labels.transition[1, 1] == 1


def test_asymmetric_noise_on_digits_is_mnists_published_map():
    labels = corrupt("asymmetric", rate=0.4, classes_of="mnist")
    mistakes = set(
        zip(labels.clean[labels.is_wrong].tolist(), labels.observed[labels.is_wrong].tolist(), strict=True)
    )
    assert mistakes == {(2, 7), (3, 8), (5, 6), (6, 5), (7, 1)}
    # five classes of ten have a similar one, and the rate counts within them
    assert labels.realised_rate == 0.2


SUPERCLASSES = """
beaver dolphin otter seal whale; aquarium_fish flatfish ray shark trout; orchid poppy rose sunflower tulip;
bottle bowl can cup plate; apple mushroom orange pear sweet_pepper; clock keyboard lamp telephone television;
bed chair couch table wardrobe; bee beetle butterfly caterpillar cockroach; bear leopard lion tiger wolf;
bridge castle house road skyscraper; cloud forest mountain plain sea; camel cattle chimpanzee elephant kangaroo;
fox porcupine possum raccoon skunk; crab lobster snail spider worm; baby boy girl man woman;
crocodile dinosaur lizard snake turtle; hamster mouse rabbit shrew squirrel;
maple_tree oak_tree palm_tree pine_tree willow_tree; bicycle bus motorcycle pickup_truck train;
lawn_mower rocket streetcar tank tractor
"""

"""Of CIFAR-100 by name, in the order of its web page."""


def test_superclass_noise_stays_within_cifar_100s_superclasses():
    groups = [group.split() for group in SUPERCLASSES.split(";")]
    names = sorted(name for group in groups for name in group)
    assert [name in groups[g] for name, g in zip(names, CIFAR100_SUPERCLASSES, strict=True)] == [True] * 100
    following = {a: b for group in groups for a, b in zip(group, group[1:] + group[:1], strict=True)}
    labels = corrupt("superclass", rate=0.5)
    assert int(labels.is_wrong.sum()) == 500
    for clean, observed in zip(labels.clean, labels.observed, strict=True):
        assert names[observed] in (names[clean], following[names[clean]])


def test_pair_noise_takes_each_class_for_the_next():
    labels = corrupt("pair", rate=0.45)
    assert set((labels.observed - labels.clean).unique().tolist()) == {0, 1, -9}
    per_class = labels.clean[labels.is_wrong].bincount(minlength=10)
    assert set(per_class.tolist()) == {45}


@pytest.mark.parametrize("n", [1000, 1003, 7])
def test_a_matrix_gives_each_pair_of_classes_the_expected_count(n):
    clean = (torch.arange(n) ** 2 + torch.arange(n)) % 10
    labels = corrupt("matrix", clean=clean, rate=None)
    counts = (clean * 10 + labels.observed).bincount(minlength=100).view(10, 10)
    matrix = torch.tensor(TRANSITION_MATRICES["cifar10n-worst"], dtype=torch.float64)
    torch.testing.assert_close(labels.transition, matrix, rtol=0, atol=1e-12)
    expected = clean.bincount(minlength=10).double().unsqueeze(1) * matrix
    # a class's count of wrong labels is rounded first, then each label's: up to 1 each
    assert (counts - expected).abs().max() < 2
    wrong = expected.sum() - expected.diagonal().sum()
    assert int(labels.is_wrong.sum()) == round(float(wrong))
    assert labels.rate == labels.realised_rate


def test_chance_decides_which_of_equal_remainders_is_rounded_up():
    # 10 classes of one sample each, of which 3 are to be wrong
    chosen = [corrupt("pair", clean=torch.arange(10), rate=0.3, seed=s).is_wrong for s in range(1000)]
    counts = torch.stack(chosen).sum(0)
    assert int(counts.sum()) == 3000
    assert scipy.stats.chisquare(counts.tolist()).pvalue > 1e-3


def test_a_matrix_is_scaled_to_the_rate_that_is_asked_for():
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
    clean = torch.arange(300) % 3
    labels = corrupt_labels(clean, kind="matrix", transition=matrix, rate=0.2, seed=0)
    assert int(labels.is_wrong.sum()) == 60
    off_diagonal = ~torch.eye(3, dtype=torch.bool)
    # the matrix alone gives (0.1 + 0.3) / 3 wrong
    torch.testing.assert_close(labels.transition[off_diagonal], 1.5 * matrix[off_diagonal])
    with pytest.raises(ValueError, match=r"^rate: .* at most 0\.444"):
        corrupt_labels(clean, kind="matrix", transition=matrix, rate=0.5, seed=0)


@pytest.mark.parametrize(("rate", "is_told"), [(0.4, False), (0.5, True), (0.6, True)])
def test_a_rate_at_which_pairs_lose_their_own_label_is_told(rate, is_told):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        corrupt_labels(torch.arange(40) % 4, kind="pair", rate=rate, seed=0)
    assert [str(each.message).startswith(f"rate: at {rate} the right label") for each in told] == [
        True
    ] * is_told


def test_a_scaling_that_makes_a_wrong_label_the_likeliest_is_told():
    """A rate that few classes must bear: two of ten are mistaken, and all their labels become wrong."""
    matrix = torch.eye(10, dtype=torch.float64)
    matrix[0, 0] = matrix[1, 1] = 0.6
    matrix[0, 1] = matrix[1, 0] = 0.4
    clean = torch.arange(1000) % 10
    with pytest.warns(UserWarning, match=r"^rate: .*class 0 as 1 .* 0\.95 .*Classes \[0, 1\].*rate=None"):
        labels = corrupt_labels(clean, kind="matrix", transition=matrix, rate=0.19, seed=0)
    assert labels.transition[0, 1] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("rate", "right"),
    [(None, 0.3), (0.09, 0.6), (0.19, 0.3)],
    ids=["not scaled", "right stays likeliest", "wrong before"],
)
def test_other_scalings_pass_in_silence(rate, right, recwarn):
    matrix = torch.eye(10, dtype=torch.float64)
    matrix[0, 0] = matrix[1, 1] = right
    matrix[0, 1] = matrix[1, 0] = 1 - right
    corrupt_labels(torch.arange(1000) % 10, kind="matrix", transition=matrix, rate=rate, seed=0)
    assert not recwarn.list


def test_a_class_that_does_not_occur_sets_no_bound_to_the_rate_of_a_matrix():
    """Its row ends where all of its labels would be wrong."""
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    clean = torch.arange(100) % 2
    labels = corrupt_labels(clean, kind="matrix", transition=matrix, rate=0.3, num_classes=3, seed=0)
    assert labels.realised_rate == 0.3
    truth = torch.tensor([[0.7, 0.3, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(labels.transition, truth)


def test_the_matrix_of_cifar_10ns_worst_labels_is_that_of_the_published_file(pytestconfig):
    path = pytestconfig.rootpath.parent / "shared" / "data" / "cifar10n-labels.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here: the matrix is not compared with its source")
    file = np.load(path, allow_pickle=False)
    clean, worst = (torch.from_numpy(file[key].astype(np.int64)) for key in ("clean_label", "worse_label"))
    labels = human_labels(clean, worst)
    matrix = torch.tensor(TRANSITION_MATRICES["cifar10n-worst"], dtype=torch.float64)
    torch.testing.assert_close(labels.transition, matrix, rtol=0, atol=1e-12)
    drawn = corrupt_labels(clean, kind="matrix", transition="cifar10n-worst", seed=0)
    assert drawn.realised_rate == labels.realised_rate == pytest.approx(0.40208)


def test_human_labels_are_taken_as_they_are_with_the_matrix_they_show():
    clean = torch.tensor([0, 0, 1, 1, 1, 3])
    observed = torch.tensor([0, 1, 1, 1, 2, 3])
    labels = human_labels(clean, observed, num_classes=5)
    assert torch.equal(labels.observed, observed)
    assert labels.rate == labels.realised_rate == pytest.approx(2 / 6)
    assert labels.transition_kind == "empirical"
    truth = torch.eye(5, dtype=torch.float64)
    truth[0, :2] = torch.tensor([1, 1]) / 2
    truth[1, 1:3] = torch.tensor([2, 1]).double() / 3
    # classes 2 and 4 have no sample: their labels were never seen to change
    torch.testing.assert_close(labels.transition, truth)


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_the_transition_is_recorded_and_says_where_it_is_from(kind):
    labels = corrupt(kind)
    empirical = kind in (*INSTANCE_KINDS, "human")
    assert labels.transition_kind == ("empirical" if empirical else "expected")
    counts = torch.zeros_like(labels.transition)
    for clean, observed in zip(labels.clean, labels.observed, strict=True):
        counts[clean, observed] += 1
    shares = counts / counts.sum(1, keepdim=True)
    # 100 samples a class, 10 with superclasses; where labels are drawn class by class, counts are rounded
    tolerance = 1e-12 if empirical else (0.2 if kind.startswith(("symmetric", "superclass")) else 0.02)
    torch.testing.assert_close(labels.transition, shares, rtol=0, atol=tolerance)


GOLDEN = {
    "symmetric": "be2035ad4674e8bf",
    "symmetric-all": "cdc944d94d2cfd6d",
    "asymmetric": "5a7ffc7db8079ce9",
    "superclass": "d4925e5683434d3f",
    "pair": "9ef372e8313463e3",
    "matrix": "2f499f70fded8039",
    "part-dependent": "151b59fead0d4a73",
    "pmd": "caa9cf7c681b95e6",
    "beta": "35020455ac560cc6",
}

"""SHA-256 of the observed labels, first 16 digits: the same on every machine."""


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_same_seed_gives_the_same_labels_on_every_machine(kind):
    observed = corrupt(kind, seed=7).observed
    assert hashlib.sha256(observed.numpy().tobytes()).hexdigest()[:16] == GOLDEN[kind]


@pytest.mark.parametrize("kind", GOLDEN)
def test_seeds_decide_the_draw_and_the_global_state_stays(kind):
    before = torch.get_rng_state()
    first, again, other = (corrupt(kind, seed=s).observed for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:rate. scaled")
@pytest.mark.parametrize("kind", [kind for kind in NOISE_KINDS if kind not in ("superclass", "human")])
@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_one_sample_and_empty_classes_are_no_special_case(kind, rate):
    for clean in (torch.tensor([3]), torch.full((50,), 3), torch.tensor([3] * 30 + [9] * 20)):
        labels = corrupt(kind, clean=clean, rate=rate)
        assert labels.is_wrong.sum() <= torch.tensor(rate * len(clean)).ceil()
        assert labels.observed.min() >= 0
        assert labels.observed.max() < 10
        assert labels.transition.isfinite().all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": -0.1}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": None}, "rate"),
        ({"kind": "asymetric"}, "kind"),
        ({"num_classes": 5}, "targets"),
        ({"targets": torch.zeros(3)}, "targets"),
        ({"targets": torch.zeros(0, dtype=torch.int64)}, "targets"),
        ({"targets": torch.tensor([0, -1])}, "targets"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "num_classes"),
        ({"inputs": pixels()}, "inputs: 'symmetric' has no such option; it takes none"),
        ({"kind": "part-dependent"}, "inputs: kind 'part-dependent' needs it"),
        ({"kind": "part-dependent", "inputs": pixels(999)}, "inputs: 999 samples"),
        ({"kind": "part-dependent", "inputs": torch.full((1000, 2), float("inf"))}, "inputs: must be finite"),
        ({"kind": "part-dependent", "inputs": pixels(), "flip_std": 0.0}, "flip_std"),
        ({"kind": "pmd"}, "posterior: kind 'pmd' needs it"),
        ({"kind": "pmd", "posterior": probabilities(), "pmd_type": 4}, "pmd_type"),
        ({"kind": "pmd", "posterior": probabilities(10)}, "posterior: must be of shape"),
        ({"kind": "pmd", "posterior": -probabilities()}, "posterior: each row"),
        ({"kind": "pmd", "posterior": probabilities() * 2}, "posterior: each row"),
        ({"kind": "beta", "concentration": 0.0}, "concentration"),
        ({"kind": "matrix"}, "transition: kind 'matrix' needs it"),
        ({"kind": "matrix", "transition": "cifar"}, "transition: unknown matrix 'cifar'"),
        ({"kind": "matrix", "transition": torch.eye(9)}, "transition: must be 10 x 10"),
        ({"kind": "matrix", "transition": [[1.0], [0.5, 0.5]]}, "transition: must be a matrix"),
        ({"kind": "matrix", "transition": torch.eye(10) * 1.1}, "transition: each row"),
        ({"kind": "matrix", "transition": torch.eye(10) * float("nan")}, "transition: must hold"),
        ({"kind": "matrix", "transition": torch.eye(10)}, "rate: .* at most 0,"),
        (
            {"kind": "asymmetric"},
            "classes_of: .*'cifar10', 'mnist'.*kind='matrix' with transition=.*kind='pair'",
        ),
        ({"kind": "asymmetric", "classes_of": "fashion-mnist"}, "classes_of: .*got 'fashion-mnist'"),
        (
            {"kind": "asymmetric", "classes_of": "mnist", "targets": targets[:9]},
            "num_classes: 'asymmetric' .*'mnist', got 9.*kind='matrix'",
        ),
        ({"kind": "superclass"}, "num_classes: 'superclass' .*kind='matrix'"),
        ({"kind": "human"}, "observed: kind 'human' needs it"),
        ({"kind": "human", "observed": targets}, "rate: 'human' labels have their own"),
        ({"kind": "human", "rate": None, "observed": targets[1:]}, "observed: must be int64"),
        ({"kind": "human", "rate": None, "observed": targets + 1}, r"observed: labels must lie in 0\.\.9"),
    ],
)
def test_bad_arguments_are_named(change, field):
    arguments = {"targets": targets, "rate": 0.2, "seed": 0, **change}
    with pytest.raises(ValueError, match=f"^{field}"):
        corrupt_labels(arguments.pop("targets"), **arguments)


def test_the_table_tells_what_each_kind_takes():
    assert noise_options("symmetric") == {}
    assert noise_options("pmd")["posterior"].required
    assert noise_options("beta")["concentration"].default == 10.0
    with pytest.raises(ValueError, match="^kind: unknown name 'asymetric'; known: symmetric,"):
        noise_options("asymetric")


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_the_tables_defaults_are_those_that_are_used(kind):
    optional = {
        name: option.default
        for name, option in noise_options(kind).items()
        if not option.required and option.default is not None
    }
    assert torch.equal(corrupt(kind).observed, corrupt(kind, **optional).observed)


@pytest.mark.parametrize("labels", [[0, 1, 2], np.arange(3)], ids=["list", "array"])
def test_labels_that_are_no_tensor_are_named(labels):
    with pytest.raises(TypeError, match="targets: must be a tensor .* torch.as_tensor"):
        corrupt_labels(labels, rate=0.4, seed=0)
    with pytest.raises(TypeError, match="observed: must be a tensor"):
        human_labels(torch.arange(3), labels)


@pytest.mark.parametrize("targets", [torch.arange(30) % 3 + 1, torch.tensor([0, 7]).repeat(15)])
def test_labels_with_gaps_are_refused_unless_the_classes_are_said(targets):
    """Wrong labels would be drawn from classes that do not exist."""
    with pytest.raises(ValueError, match="^num_classes: no target is of class [01]"):
        corrupt_labels(targets, kind="symmetric", rate=0.4, seed=0)
    assert corrupt_labels(targets, kind="symmetric", rate=0.4, seed=0, num_classes=8).transition.shape == (
        8,
        8,
    )
