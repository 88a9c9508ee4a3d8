import re
import tomllib

import pytest

from analysis.plan import StudyError, final_runs, read_study, selection_runs
from analysis.plan.against_data import check_against_data
from ncsam import load_dataset
from tests.analysis.small_study import SGD_ALONE

GOOD = (
    SGD_ALONE.replace("epochs = 3", "epochs = 2").replace("hidden = [8]", "hidden = [16]")
    + """
[[methods]]
name = "sam"
label = "SAM"
rho = [0.1, 0.5]
[[methods]]
name = "oracle-sam"
label = "oracle"
like = "SAM"
"""
)


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return read_study(path)


def test_a_study_is_the_grid_of_rates_methods_and_seeds(tmp_path):
    study = read(tmp_path, GOOD)
    runs = final_runs(study)
    assert len(runs) == 2 * 3 * 2
    assert runs[0].path == "runs/digits/symmetric-0/sgd/seed0.h5"
    assert len({run.path for run in runs}) == len({run.fingerprint for run in runs}) == 12


def test_listed_values_are_candidates_to_choose_from(tmp_path):
    study = read(tmp_path, GOOD)
    by_label = {run.config.method.label: run for run in final_runs(study)}
    assert selection_runs(study, by_label["SGD"]) == []
    trials = selection_runs(study, by_label["SAM"])
    assert [t.config.method.candidates for t in trials] == [[{"rho": 0.1}], [{"rho": 0.5}]]
    assert {t.config.seed for t in trials} == {1000}
    assert [t.path for t in selection_runs(study, by_label["oracle"])] == [t.path for t in trials]


CHANGED = GOOD.replace(
    'label = "SGD"',
    'label = "SGD"\n[[methods]]\nname = "plain"\nlabel = "other"\nmodel = { hidden = [32] }\n'
    "training = { weight_decay = 0.01, crop = 1 }",
)


def test_a_method_may_have_an_architecture_and_a_training_of_its_own(tmp_path):
    of_label = {run.config.method.label: run.config for run in final_runs(read(tmp_path, CHANGED))}
    plain, other = of_label["SGD"], of_label["other"]
    assert (plain.model.options["hidden"], other.model.options["hidden"]) == ([16], [32])
    assert (other.training.weight_decay, other.training.crop) == (0.01, 1)
    assert other.training.learning_rate == plain.training.learning_rate
    assert other.method.changed == ["model.hidden", "training.crop", "training.weight_decay"]
    assert plain.method.changed == []


def test_methods_beside_one_with_a_training_of_its_own_keep_their_fingerprints(tmp_path):
    before = {run.path: run.fingerprint for run in final_runs(read(tmp_path, GOOD))}
    after = {run.path: run.fingerprint for run in final_runs(read(tmp_path, CHANGED))}
    assert before.items() <= after.items()


def test_a_setting_equal_to_the_studys_is_no_change(tmp_path):
    text = CHANGED.replace("hidden = [32]", "hidden = [16]")
    of_label = {run.config.method.label: run.config.method for run in final_runs(read(tmp_path, text))}
    assert of_label["other"].changed == ["training.crop", "training.weight_decay"]


def test_with_a_choice_for_each_seed_no_two_seeds_share_a_trial(tmp_path):
    study = read(tmp_path, GOOD + "[selection]\nseeds = [7, 8]\nper_seed = true\n")
    trials = [{t.path for t in selection_runs(study, run)} for run in final_runs(study)]
    by_seed = {
        run.config.seed: {t.config.seed for t in selection_runs(study, run)}
        for run in final_runs(study)
        if run.config.method.label == "SAM"
    }
    assert by_seed == {0: {10_007, 10_008}, 1: {20_007, 20_008}}
    sam = [
        paths
        for run, paths in zip(final_runs(study), trials, strict=True)
        if run.config.method.label == "SAM"
    ]
    assert len(set.union(*sam)) == sum(map(len, sam))


def test_the_fingerprint_follows_every_setting_that_decides_the_result(tmp_path):
    prints = set()
    for change in ("", "epochs = 3", "hidden = [17]", "rho = [0.1, 0.4]", "sharpness_rho = 0.1"):
        text = GOOD
        if change.startswith("sharpness"):
            text += f"[measure]\n{change}\n"
        elif change:
            key = change.split(" =")[0]
            text = re.sub(rf"^{key} = .*$", change, text, flags=re.M)
        prints.add(final_runs(read(tmp_path, text))[2].fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs = 2", "epoch = 2", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("rates = [0.0, 0.4]", "rate = 0.4", "noise.rates: is missing; is 'rate' a misspelling of it?"),
        ("rates = [0.0, 0.4]", 'kind = "asym"\nrates = [0.1]', "did you mean 'asymmetric'?"),
        ('name = "sam"', 'name = "SAM"', "did you mean 'sam'?"),
        (
            "epochs = 2",
            "epochs = 2\nlearning_rte = 0.1",
            "training.learning_rte: unknown key; did you mean 'learning_rate'",
        ),
        ("epochs = 2", "epochs = 0", "training.epochs: input should be greater than or equal to 1, got 0"),
        ("epochs = 2", 'epochs = "2"', "training.epochs"),
        ("epochs = 2", "epochs = 2\nlearning_rate = nan", "training.learning_rate"),
        (
            "rates = [0.0, 0.4]",
            "rates = [-0.2]",
            "noise.rates.0: input should be greater than or equal to 0, got -0.2",
        ),
        ("rates = [0.0, 0.4]", "rates = [1.0]", "noise.rates.0"),
        ("rates = [0.0, 0.4]", "rates = []", "noise.rates"),
        ("rates = [0.0, 0.4]", "rates = [0.4, 0.4]", "noise.rates: holds a value twice"),
        (
            "rates = [0.0, 0.4]",
            'kind = "symetric"\nrates = [0.1]',
            "noise.kind: unknown 'symetric'; known: ",
        ),
        (
            'dataset = "digits"',
            'dataset = "digitz"',
            "dataset: unknown 'digitz'; known: ",
        ),
        ('dataset = "digits"', "", "dataset: is missing"),
        ('name = "small"', 'name = "../up"', "name: "),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds: holds a value twice"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds.0"),
        ("[noise]", "[selection]\nseeds = [7, 7]\n[noise]", "selection.seeds: holds a value twice"),
        (
            "[noise]",
            "[selection]\nseeds = [10000]\nper_seed = true\n[noise]",
            "selection.seeds: with per_seed they must be below 10000",
        ),
        ("epochs = 2", "epochs = 2\nprobe_epochs = [3]", "training.probe_epochs: 3 comes after the last"),
        (
            'epochs = 2\n[[methods]]\nname = "plain"\n',
            'epochs = 3\nprobe_epochs = [3]\n[[methods]]\nname = "plain"\nepochs = 2\n',
            "methods.0.epochs: training.probe_epochs has 3, which comes after the last of 2 epochs",
        ),
        (
            "rho = [0.1, 0.5]",
            'rho = 0.1\nmodel = { name = "nope" }',
            "methods.1.model.name: model: unknown name 'nope'; known: ",
        ),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\nmodel = { name = 5 }",
            "methods.1.model: name must be a word, got 5",
        ),
        (
            "rho = [0.1, 0.5]",
            'rho = 0.1\nmodel = { name = "lenet" }',
            "methods.1.model.hidden: 'lenet' has no such option",
        ),
        ("[noise]", "[measure]\nsurface_rates = [0.4]\n[noise]", "measure.surface_seeds: is empty"),
        ("[noise]", "[measure]\nsurface_seeds = [0]\n[noise]", "measure.surface_rates: is empty"),
        ("rho = [0.1, 0.5]", "rho = [1, 1.0]", "methods.1.rho: holds a candidate twice"),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\nloss = {name = 'gce', q = true}",
            "methods.1.loss.q: must be a number, got True",
        ),
        (
            "[noise]",
            '[noise]\nkind = "matrix"\ntransition = [{a = 1}]',
            "noise.transition: must be a list of rows of numbers",
        ),
        ("seeds = [0, 1]", "seeds = [1000]", "selection.seeds: 1000"),
        ('name = "mlp"', 'name = "mpl"', "model.name: unknown 'mpl'"),
        ("hidden = [16]", "hiden = [16]", "model.hiden: 'mlp' has no such option; did you mean 'hidden'"),
        ("hidden = [16]", "hidden = true", "model.hidden: must be a list of whole numbers"),
        (
            'name = "mlp"\nhidden = [16]',
            'name = "wrn"\ndropout = 1.5',
            "model.dropout: must be a share from 0 to below 1",
        ),
        ("hidden = [16]", "seed = [16]", "model.seed: 'mlp' has no such option"),
        ("hidden = [16]", "hidden = [100000000000]", "model.hidden: must be a list of whole numbers from 1"),
        (
            "rates = [0.0, 0.4]",
            "rates = [0.4, 0.4000000000000001]",
            "noise.rates, methods: two values are too close",
        ),
        ("rho = [0.1, 0.5]", "rho = 1" + 400 * "0", "methods.1.rho: must be a number"),
        ('label = "SGD"', 'label = "SGD [x]"', "methods.0.label"),
        ('label = "SGD"', f'label = "{65 * "a"}"', "methods.0.label"),
        ("epochs = 2", "epochs = 2\nbatch_size = 1000000000000", "training.batch_size"),
        ("[noise]", "[measure]\nsurface_rates = [0.3]\n[noise]", "measure.surface_rates: 0.3 is not one of"),
        ("[noise]", "[measure]\nsurface_seeds = [9]\n[noise]", "measure.surface_seeds: 9 is not one of"),
        ("hidden = [16]", "hidden = [0]", "model.hidden"),
        ('name = "sam"', 'name = "sams"', "methods.1.name: "),
        ("rho = [0.1, 0.5]", "rho = [0.1, -0.5]", "methods.1.rho: "),
        (
            "rho = [0.1, 0.5]",
            "roh = 0.1",
            "methods.1.roh: 'sam' has no such option; did you mean 'rho'",
        ),
        ("rho = [0.1, 0.5]", "", "methods.1.rho: method 'sam' needs it"),
        ("rho = [0.1, 0.5]", 'rho = "0.1"', "methods.1.rho: must be a number"),
        ("rho = [0.1, 0.5]", "rho = []", "methods.1.rho"),
        ("rho = [0.1, 0.5]", "rho = true", "methods.1.rho: must be a number"),
        ("rho = [0.1, 0.5]", "rho = [0.1, 0.1]", "methods.1.rho: holds a candidate twice"),
        ("rho = [0.1, 0.5]", 'rho = 0.1\nloss = "gec"', "methods.1.loss.name: unknown 'gec'"),
        ("rho = [0.1, 0.5]", "rho = 0.1\nloss = {name = 'gce', q = 2}", "methods.1.loss.q: must be above 0"),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\nloss = {name = 'gce', p = 2}",
            "methods.1.loss.p: 'gce' has no such",
        ),
        (
            "rho = [0.1, 0.5]",
            'rho = 0.1\nloss = "forward"',
            'methods.1.loss.transition: loss \'forward\' needs "known" or "estimated"',
        ),
        (
            "rho = [0.1, 0.5]",
            'rho = 0.1\nloss = { name = "gce", transition = "known" }',
            "methods.1.loss.transition: loss 'gce' takes none; leave it out",
        ),
        ("rho = [0.1, 0.5]", "rho = 0.1\nmixup = 1.0\nloss = 'gce'", "methods.1.mixup: mixes classes"),
        (
            'name = "sam"\nlabel = "SAM"\nrho = [0.1, 0.5]',
            'name = "oracle-sam"\nrho = 0.1\nmixup = 1.0',
            "methods.1.mixup: mixes classes",
        ),
        (
            'name = "sam"\nlabel = "SAM"\nrho = [0.1, 0.5]',
            'name = "co-teaching"\nforget_rate = 0.4\nloss = "elr"',
            "methods.1.loss: 'elr' remembers one network's predictions",
        ),
        ("rates = [0.0, 0.4]", 'kind = "human"\nlabels = "worst"\nrates = [0.1]', "noise.labels: says which"),
        ("epochs = 2", "epochs = 2\ncrop = -1", "training.crop"),
        ("epochs = 2", 'epochs = 2\nprecision = "half"', "training.precision"),
        ("[noise]", '[noise]\nkind = "human"\nfile = 3', "noise.file: must be a path"),
        ("[noise]", '[noise]\nkind = "matrix"', "noise.transition: kind 'matrix' needs it"),
        ("[noise]", "[noise]\nconcentration = 2", "noise.concentration: 'symmetric' has no such option"),
        ('label = "SGD"', 'label = "SAM"', "methods.1.label: 'SAM' has the folder 'sam' of another"),
        ('label = "SGD"', 'label = "--"', "methods.0.label"),
        ('name = "sam"', 'name = "SAM"', "registers it ([[methods]] number 2 in the file)"),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\nmodel = { hiden = [8] }",
            "methods.1.model.hiden: 'mlp' has no such",
        ),
        ("rho = [0.1, 0.5]", "rho = 0.1\nmodel = { hidden = [0] }", "methods.1.model.hidden"),
        ("rho = [0.1, 0.5]", "rho = 0.1\ntraining = { epochs = 3 }", "methods.1.training.epochs"),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\ntraining = { weight_decay = -1 }",
            "methods.1.training.weight_decay",
        ),
        ('like = "SAM"', 'like = "NCSAM"', "methods.2.like: no method 'NCSAM'"),
        (
            'label = "SGD"\n\n[[methods]]\nname = "sam"\nlabel = "SAM"\nrho = [0.1, 0.5]\n',
            'like = "oracle"\n',
            "methods.0.like: no method 'oracle' to follow; all are like others; leave like out of one",
        ),
        ("[noise]", "[noise", "not a TOML file"),
        (
            "[noise]",
            '[noise]\nredraw = "epoch"',
            "noise.redraw: input should be 'never' or 'step', got 'epoch'",
        ),
        ("epochs = 2", 'epochs = 2\nschedule = "linear"', "training.schedule.name: unknown 'linear'"),
        (
            "epochs = 2",
            'epochs = 2\nschedule = {name = "step", mileston = [0.5]}',
            "training.schedule.mileston: 'step' has no such option; did you mean 'milestones'",
        ),
        (
            "epochs = 2",
            'epochs = 2\nschedule = {name = "cosine", warmup_epochs = 2}',
            "training.schedule.warmup_epochs: must be at least 0 and below the 2 epochs",
        ),
        (
            "rho = [0.1, 0.5]",
            "rho = 0.1\nwarmup = 1.5",
            "methods.1.warmup: must be a share in [0, 1], got 1.5",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_names_the_field(tmp_path, old, new, says):
    assert old in GOOD
    with pytest.raises(StudyError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert "study.toml" in message


@pytest.mark.parametrize(
    ("old", "new"), [("rates = [0.0, 0.4]", 'rates = ["zz"]'), ("seeds = [0, 1]", 'seeds = ["zz"]')]
)
def test_a_list_of_numbers_is_not_taken_for_a_list_of_tables(tmp_path, old, new):
    assert old in GOOD
    with pytest.raises(StudyError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "0: " in str(caught.value)
    assert "[[" not in str(caught.value)


def test_probes_of_a_study_that_measures_nothing_are_refused(tmp_path):
    text = GOOD.replace("epochs = 2", "epochs = 2\nprobe_epochs = [1]")
    assert read(tmp_path, text).training.probe_epochs == [1]
    with pytest.raises(ValueError, match=r"training\.probe_epochs: measured = false leaves out"):
        read(tmp_path, "measured = false\n" + text)


def test_results_of_an_earlier_version_that_took_probes_and_measured_nothing_can_be_read(tmp_path):
    text = "measured = false\n" + GOOD.replace("epochs = 2", "epochs = 2\nprobe_epochs = [1]")
    assert not read(tmp_path, text + "\n[resolved]\nschema = 1\n").measured


def test_candidates_of_both_signs_have_files_of_their_own(tmp_path):
    text = (
        GOOD.replace('name = "sam"', 'name = "ncsam"')
        .replace("rho = [0.1, 0.5]", "rho = 0.1\nstrength = 0.1\nflip_ratio = 0.4\ncompensation = [1, -1]")
        .replace('name = "oracle-sam"', 'name = "ncsam"')
    )
    study = read(tmp_path, text)
    paths = {trial.path for run in final_runs(study) for trial in selection_runs(study, run)}
    assert len(paths) == 2 * 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "[noise]",
            "[measure]\neigenvalues = 100000\n[noise]",
            "measure.eigenvalues: 100000 of a model with",
        ),
        ("[noise]", "[selection]\nvalidation_fraction = 0.99999\n[noise]", "selection.validation_fraction"),
        ("[noise]", '[noise]\nkind = "superclass"', "noise."),
        ("rates = [0.0, 0.4]", 'kind = "human"\nredraw = "step"\nrates = [0.4]', "noise."),
        ("[noise]", '[noise]\nkind = "matrix"\ntransition = [[1.0]]', "noise.transition"),
        (
            "[noise]",
            '[noise]\nkind = "human"\nfile = "nowhere.npz"',
            "noise.file: nowhere.npz does not exist",
        ),
        (
            "[noise]",
            '[noise]\nkind = "pmd"\nposterior = "/"',
            "noise.posterior: cannot read /: Is a directory",
        ),
        (
            "[noise]",
            f'[noise]\nkind = "pmd"\nposterior = "{__file__}"',
            f"noise.posterior: {__file__} is not a .npy file of numbers",
        ),
        (
            'name = "mlp"\nhidden = [16]',
            'name = "cnn"\nchannels = [2, 2, 2, 2, 2, 2]',
            "model: does not take images",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_named(tmp_path, old, new, says):
    assert old in GOOD
    with pytest.raises(StudyError, match=re.escape(says)):
        check_against_data(read(tmp_path, GOOD.replace(old, new, 1)), load_dataset("digits"), None)


def test_a_single_test_sample_is_enough(tmp_path):
    check_against_data(read(tmp_path, GOOD), load_dataset("digits", train_samples=200, test_samples=1), None)


def test_a_grid_too_large_is_refused_with_its_size(tmp_path):
    text = GOOD.replace("seeds = [0, 1]", f"seeds = {list(range(2000, 52_000))}")
    with pytest.raises(StudyError, match="300000 runs"):
        read(tmp_path, text)


def test_the_shipped_studies_are_valid(pytestconfig):
    for path in (pytestconfig.rootpath / "studies").glob("*.toml"):
        if "[[data]]" not in path.read_text():  # a leaderboard makes several studies
            assert final_runs(read_study(path))
        assert tomllib.loads(path.read_text())["name"] == path.stem
