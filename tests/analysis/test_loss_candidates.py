"""A list in the table of a loss holds candidates, which are chosen as those of a method are."""

import json

import pytest

from analysis import store
from analysis.plan import StudyError, final_runs, read_study, selection_runs
from tests.analysis.tiny_study import TINY, finished_tiny

SGD = 'name = "plain"\nlabel = "SGD"'
LOSSES = "measured = false" + TINY.replace(
    SGD,
    """name = "plain"
label = "chosen"
loss = { name = "cross-entropy", label_smoothing = [0.0, 0.9] }
[[methods]]
name = "sam"
rho = 0.05
label = "alike"
like = "chosen"
loss = "cross-entropy"
[[methods]]
name = "plain"
label = "SLN"
loss = { name = "sln", sigma = [5.0, 0.0] }
[[methods]]
name = "plain"
label = "smoothed 0.0"
[[methods]]
name = "plain"
label = "smoothed 0.9"
loss = { name = "cross-entropy", label_smoothing = 0.9 }
""",
).replace("[0, 1]", "[0]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The scalars of each final run by its label, and of each trial by its folder's name."""
    out = finished_tiny(tmp_path_factory.mktemp("losses"), LOSSES)
    finals = {row["method"]: row for row in map(store.scalars, out.glob("runs/**/*.h5"))}
    trials = {path.parent.name: store.scalars(path) for path in out.glob("selection/**/*.h5")}
    return finals, trials


@pytest.mark.parametrize(
    ("label", "option", "values"), [("chosen", "label_smoothing", (0.0, 0.9)), ("SLN", "sigma", (5.0, 0.0))]
)
def test_the_candidate_with_the_best_score_on_validation_labels_is_chosen(runs, label, option, values):
    finals, trials = runs
    scores = {value: trials[f"loss.{option.replace('_', '-')}-{value}"]["test_accuracy"] for value in values}
    assert len(set(scores.values())) == 2
    assert json.loads(finals[label]["hyperparameters"]) == {f"loss.{option}": max(scores, key=scores.get)}
    assert json.loads(finals[label]["tuned"]) == [f"loss.{option}"]
    assert finals[label]["candidates"] == 2


def test_the_chosen_option_reaches_the_loss_and_the_table(runs):
    finals, _ = runs
    chosen = json.loads(finals["chosen"]["hyperparameters"])["loss.label_smoothing"]
    fixed = finals[f"smoothed {chosen}"]
    assert {finals["chosen"]["label_smoothing"], fixed["label_smoothing"]} == {chosen}
    assert finals["chosen"]["test_loss"] == fixed["test_loss"]
    assert finals["smoothed 0.0"]["test_loss"] != finals["smoothed 0.9"]["test_loss"]


def test_a_method_that_is_like_another_takes_the_options_of_its_loss(runs):
    finals, _ = runs
    chosen = json.loads(finals["chosen"]["hyperparameters"])
    assert json.loads(finals["alike"]["hyperparameters"]) == {**chosen, "rho": 0.05}
    assert finals["alike"]["label_smoothing"] == finals["chosen"]["label_smoothing"]


@pytest.fixture
def study(tmp_path):
    def read(method):
        path = tmp_path / "study.toml"
        path.write_text(TINY.replace(SGD, method))
        return read_study(path)

    return read


def test_options_of_the_method_and_of_its_loss_are_combined(study):
    found = study('name = "sam"\nrho = [0.1, 0.2]\nloss = { name = "sce", alpha = [0.1, 6.0], beta = 0.5 }')
    run = final_runs(found)[0]
    assert run.config.method.candidates == [
        {"rho": rho, "loss.alpha": alpha} for rho in (0.1, 0.2) for alpha in (0.1, 6.0)
    ]
    # an option that is no list stays where it always was
    assert run.config.method.loss.options == {"beta": 0.5}
    assert len({trial.path for trial in selection_runs(found, run)}) == 4


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ('loss = { name = "gce", q = [] }', "methods.0.loss.q: is an empty list"),
        ('loss = { name = "gce", q = [0.5, 0.5] }', "methods.0.loss.q: holds a candidate twice"),
        ('loss = { name = "gce", q = [0.5, "a"] }', "methods.0.loss.q: must be a number, got 'a'"),
        ('loss = { name = "gce", q = [0.5, 2.0] }', "methods.0.loss.q: must be above 0 and at most 1"),
        ('loss = { name = "gce", p = [0.5, 2.0] }', "methods.0.loss.p: 'gce' has no such option"),
        (
            'label = "a"\nloss = { name = "gce", q = [0.5, 0.7] }\n[[methods]]\nname = "plain"\nlike = "a"',
            "methods.1.loss.q: 'cross-entropy' has no such option",
        ),
        (
            'label = "a"\nloss = { name = "gce", q = [0.5, 0.7] }\n'
            '[[methods]]\nname = "plain"\nlike = "a"\nloss = { name = "gce", q = 0.5 }',
            "methods.1.loss.q: is chosen by 'a', which this method is like; leave it out",
        ),
    ],
)
def test_a_list_that_cannot_be_chosen_from_is_refused_in_one_line(study, method, message):
    with pytest.raises(StudyError) as caught:
        study(f'name = "plain"\n{method}')
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
