"""A part of one's own whose name means something else already is refused before the first run, never left out."""

import pytest

from analysis import store
from analysis.claims import (
    CLAIMS,
    SGD,
    Claim,
    Level,
    Quantity,
    check_own_columns,
    register,
    register_quantity,
)
from analysis.plan import options
from analysis.plan.study import LossSettings, MethodSettings, ModelSettings, NoiseSettings
from analysis.run.own_measures import register_measure
from ncsam import (
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METHOD_REGISTRY,
    MODEL_REGISTRY,
    NOISE_REGISTRY,
    SAM,
    model_options,
)
from tests.analysis.own_study import MINE, STUDY, forgotten_at_the_end, study


@pytest.fixture(autouse=True)
def registries():
    with forgotten_at_the_end():
        yield


@pytest.fixture
def folder(tmp_path, nothing_shown, monkeypatch):
    (tmp_path / "own.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns_of(table):
    return [str(name) for name in table.columns]


def test_every_column_of_a_study_is_known_as_built_in(undisturbed):
    assert [name for name in columns_of(store.read_table(undisturbed)) if not store.is_built_in(name)] == []


@pytest.mark.parametrize(
    "column",
    [
        *("weight_norm", "test_accuracy", "seed", "dataset", "method", "trace_observed", "study", "failed"),
        *("stability_edge", "bound_cross_entropy_complexity", "loss_auroc", "mean_probe_trace_observed"),
        *("jacobian_trace_observed_at_loss_1", "early_trace", "layer_alarm"),
    ],
)
def test_a_column_that_ncsam_fills_is_refused_with_both_names(column):
    with pytest.raises(
        ValueError, match=f"columns: '{column}' of the measure 'mine' is named like a column that ncsam fills"
    ):
        register_measure("mine", [column], print)


def test_a_column_of_another_measure_is_refused_with_both_names():
    register_measure("first", ["margin"], print)
    with pytest.raises(
        ValueError,
        match="'margin' of the measure 'second' is a column of the measure 'first' already; choose",
    ):
        register_measure("second", ["margin"], print)


def test_a_column_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="columns: the measure 'mine' names one twice"):
        register_measure("mine", ["margin", "margin"], print)


@pytest.mark.parametrize("name", ["", "a/b", "."])
def test_a_name_that_no_group_of_a_file_can_have_is_refused(name):
    with pytest.raises(ValueError, match="^name: must be of letters"):
        register_measure(name, ["margin"], print)


def test_a_measure_named_like_a_built_in_one_is_refused():
    with pytest.raises(ValueError, match="the measure 'curvature' is registered already; choose another"):
        register_measure("curvature", ["margin"], print)


def test_a_column_that_a_quantity_would_hide_is_refused():
    register_measure("mine", ["damping_contrast"], print)
    with pytest.raises(
        ValueError,
        match="'damping_contrast' of the measure 'mine' is named like the quantity 'damping_contrast'",
    ):
        check_own_columns()


def test_a_quantity_may_be_named_like_its_own_column():
    register_measure("mine", ["margin"], print)
    register_quantity("margin", Quantity("margin on test data", ("margin",)))
    check_own_columns()


def test_a_quantity_that_would_hide_a_built_in_column_is_refused():
    with pytest.raises(ValueError, match="the quantity 'train_samples' would hide the column of this name"):
        register_quantity("train_samples", Quantity("norm", ("trace_observed",)))
    register_quantity("train_samples", Quantity("training samples", ("train_samples",), margin=1))


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (METHOD_REGISTRY, "sam"),
        (DATASET_REGISTRY, "digits"),
        (MODEL_REGISTRY, "mlp"),
        (LOSS_REGISTRY, "cross-entropy"),
        (NOISE_REGISTRY, "symmetric"),
    ],
)
def test_a_part_named_like_a_built_in_one_is_refused(registry, name):
    with pytest.raises(ValueError, match=f"{registry.field}: the name '{name}' is taken; choose another"):
        registry.register(name)


@pytest.mark.parametrize("name", ["L1", "l1"])
def test_the_id_of_a_built_in_claim_is_refused_in_any_case(name):
    with pytest.raises(ValueError, match=f"id: '{name}' is that of the built-in claim L1 .*choose another"):
        register(Claim(name, "s", "p", [Level("test_loss", SGD, sign=1)]))


def test_an_own_claim_joins_no_built_in_family_whose_verdicts_it_would_change():
    with pytest.raises(ValueError, match="id: 'L99' begins like the built-in claims L, .* such as X"):
        register(Claim("L99", "s", "p", [Level("test_loss", SGD, sign=1)]))
    assert "L99" not in CLAIMS


def test_an_argument_named_like_a_key_of_the_study_is_refused(folder, capsys):
    (folder / "mine.py").write_text(
        MINE.replace("factor: float", "epochs: float").replace("factor *", "epochs *")
    )
    (folder / "own.toml").write_text(STUDY.replace("factor = 3.0", "epochs = 3"))
    assert study("--with", "mine.py") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "methods.0.name: 'scaled-sam' has an argument 'epochs', a key that every study has here" in said
    assert not (folder / "out").exists()


def test_no_built_in_argument_is_named_like_a_key_of_the_study():
    for registry, table in ((METHOD_REGISTRY, MethodSettings), (LOSS_REGISTRY, LossSettings)):
        for name in registry.entries:
            assert not set(registry.options(name)) & set(table.model_fields)
    for name in MODEL_REGISTRY.entries:
        assert not set(model_options(name)) & set(ModelSettings.model_fields)
    for kind in NOISE_REGISTRY.entries:
        assert not set(options.study_options(kind)) & set(NoiseSettings.model_fields)


def test_a_clash_is_told_before_the_first_run(folder, capsys):
    (folder / "mine.py").write_text(MINE.replace("mean_confidence", "weight_norm"))
    assert study("--with", "mine.py") == 2
    assert "'weight_norm' of the measure 'confidence' is named like" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (folder / "out").exists()


def test_an_own_method_may_share_its_class_with_a_built_in_one():
    METHOD_REGISTRY.register("my-sam")(SAM)
    assert METHOD_REGISTRY.entries["my-sam"] is SAM
