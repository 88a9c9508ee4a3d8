"""Finds the runs of a method. Methods are recognized by their settings, not by the labels in a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.quantities import quantity
from analysis.plan.choice import method_part
from ncsam import hyperparameters

TUNED = ("rho", "flip_ratio", "strength", "warmup")
"""Hyper-parameters that a study may choose. Another value of any other hyper-parameter makes another variant.

A warm-up belongs to them only if the method has one by default: SAM with a warm-up is another variant than SAM."""

SAME_NORM = 1.25
"""Perturbations whose mean norms differ by less than this factor count as equally long."""

SAME_UNCERTAINTY = 1.1
"""Networks whose mean uncertainties differ by less than this factor count as equally unsure."""

SAME_JACOBIAN_TRACE = 1.15
"""Mean traces of J^T J that differ by less than this factor count as equal."""

UNCHANGED = "[]"
"""The text of the column `changed` of a method that trains as its study says."""

CELL = ["dataset", "noise_kind", "noise_rate"]
"""Columns that name a cell. The seeds of a cell repeat one measurement."""

PAIRED_BY = [*CELL, "seed"]
"""Runs with equal values in these columns are paired."""


@dataclass(frozen=True)
class Equal:
    """What a variant's runs must have in common with those of another one.

    Attributes:
        quantity: the column of a positive quantity. In each cell the label with the nearest mean counts.
        to: the other variant.
        within: the factor by which the means may differ.
    """

    quantity: str
    to: Variant
    within: float


@dataclass(frozen=True)
class Variant:
    """A method with settings.

    Attributes:
        title: title in tables and figures.
        name: name of the method in `ncsam.METHODS`.
        settings: hyper-parameters that differ from the method's defaults; those in `TUNED` may have any value.
        loss: training loss, a name in `ncsam.LOSSES`. Its options may have any value, except for a smoothing.
        larger_radius: whether only runs count whose rho is larger than that of the method's chosen runs in the same
            cell.
        equal: only runs count that equal those of another variant in a quantity, such as the perturbations' length.
        changed: the settings of architecture and training, such as `"training.weight_decay"`, in which the method
            differs from its study. Runs with other changes are of another variant.
    """

    title: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "cross-entropy"
    larger_radius: bool = False
    equal: Equal | None = None
    changed: tuple[str, ...] = ()


SGD = Variant("SGD", "plain")
SLN = Variant("SGD, stochastic label noise", "plain", loss="sln")
SAM = Variant("SAM", "sam")
LARGER_SAM = Variant("SAM with a larger radius", "sam", larger_radius=True)
ORACLE = Variant("SAM, oracle", "oracle-sam")
CLEAN_SAM = Variant("SAM on rightly labeled samples", "clean-sam")
CLEAN_PERTURBATION = Variant(
    "SAM with the perturbation of rightly labeled samples", "clean-sam", {"descent": "all"}
)
WARMED_SAM = Variant("SAM with a warm-up", "sam", {"warmup": 0.25})
JACOBIAN_SAM = Variant("J-SAM", "j-sam")
LOGIT_SAM = Variant("L-SAM", "l-sam")
FISHER_PENALTY = Variant("penalty on the Fisher trace", "fisher-penalty")
JACOBIAN_PENALTY = Variant("penalty on tr J^T J", "jacobian-penalty")
EQUALLY_UNSURE = Variant(
    "penalty on confidence, equally unsure",
    "plain",
    loss="confidence-penalty",
    equal=Equal("uncertainty_observed", JACOBIAN_PENALTY, SAME_UNCERTAINTY),
)
EQUALLY_STEEP = Variant(
    "penalty on confidence, equal tr J^T J",
    "plain",
    loss="confidence-penalty",
    equal=Equal("jacobian_trace_observed", JACOBIAN_PENALTY, SAME_JACOBIAN_TRACE),
)
NCSAM = Variant("NCSAM", "ncsam")
OPPOSITE_SIGN = Variant("NCSAM, opposite sign", "ncsam", {"compensation": -1})
RANDOM_FLIPS = Variant("NCSAM, random flips", "ncsam", {"draw": "uniform", "labels": "uniform"})
RANDOM_DIRECTION = Variant("NCSAM, random direction", "ncsam", {"direction": "random"})
UNCOMPENSATED = Variant("NCSAM without compensation", "ncsam", {"strength": 0.0})
CONSTANT_SCHEDULE = Variant("NCSAM, constant schedule", "ncsam", {"schedule": "constant"})
NOT_PROJECTED = Variant("NCSAM, not projected", "ncsam", {"project": False})
SAM_AS_LONG = Variant(
    "SAM with perturbations as long as NCSAM's",
    "sam",
    equal=Equal("mean_perturbation_norm", NCSAM, SAME_NORM),
)
SAM_AS_LONG_AS_NOT_PROJECTED = Variant(
    "SAM with perturbations as long as not projected NCSAM's",
    "sam",
    equal=Equal("mean_perturbation_norm", NOT_PROJECTED, SAME_NORM),
)


def runs_of(table: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    """The runs of a variant with its loss and any tuned hyper-parameters, without mixed or smoothed labels."""
    is_named = table["method_name"] == variant.name
    # most claims are of methods that a study does not have
    if not is_named.any():
        return table.iloc[:0]
    is_named &= (table["loss"] == variant.loss) & (table["mixup"] == 0) & (table["label_smoothing"] == 0)
    is_named &= changes(table) == json.dumps(sorted(variant.changed))
    texts = table["hyperparameters"]
    fitting = [text for text in texts[is_named].unique() if _has_settings(variant, json.loads(text))]
    # the table has hundreds of columns, so that runs are taken out of it once
    return table[is_named & texts.isin(fitting)]


def _has_settings(variant: Variant, settings: dict[str, Any]) -> bool:
    defaults = {
        name: value
        for name, value in hyperparameters(variant.name).items()
        if name not in TUNED or (name == "warmup" and value == 0)
    }
    wanted = {**defaults, **variant.settings}
    # a strength of 0 is no tuned value: it is a control with NCSAM's warm-up and radius alone
    if settings.get("strength") == 0 and "strength" not in wanted:
        return False
    return all(
        value is Parameter.empty or settings.get(name, defaults.get(name)) == value
        for name, value in wanted.items()
    )


def changes(table: pd.DataFrame) -> pd.Series:
    """The settings in which each run's method differs from its study, as JSON of a sorted list."""
    return table["changed"] if "changed" in table else pd.Series(UNCHANGED, index=table.index)


class AmbiguousError(ValueError):
    """Several methods of a study could be the method of a claim."""


def select(table: pd.DataFrame, variant: Variant, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """The runs of a variant that enter a claim. Only one of several labels does, so that a pair of runs enters once.

    For each data set and kind of noise, the label whose hyper-parameters were chosen from most candidates enters, so
    that a tuned method takes precedence over values set by hand. Of equal ones, the label with the hyper-parameters of
    the compared runs enters. With `larger_radius`, the label with the smallest of the larger mean radii enters. With
    `equal`, the label with the nearest mean enters, for each cell.

    Raises:
        AmbiguousError: several labels are left, and only their names could decide between them.
    """
    runs = runs_of(table, variant)
    if variant.larger_radius:
        return _with_larger_radius(table, runs, variant)
    if variant.equal is not None:
        return _equal(runs, select(table, variant.equal.to), variant.equal)
    if runs["method"].nunique() <= 1:
        return runs
    chosen = [
        _most_tuned(of_noise, variant, beside)
        for _, of_noise in runs.groupby(["dataset", "noise_kind"], sort=False)
    ]
    return pd.concat(chosen) if chosen else runs


def select_both(table: pd.DataFrame, first: Variant, second: Variant) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of two variants that are compared. If one has several labels, the runs of the other decide between them.

    Raises:
        AmbiguousError: as for `select`.
    """
    try:
        known = select(table, first)
    except AmbiguousError:
        known = select(table, second)
        return select(table, first, beside=known), known
    return known, select(table, second, beside=known)


def _most_tuned(runs: pd.DataFrame, variant: Variant, beside: pd.DataFrame | None) -> pd.DataFrame:
    if runs["method"].nunique() == 1:
        return runs
    # older tables lack this column
    counted = runs if "candidates" in runs else runs.assign(candidates=1)
    candidates = counted.groupby("method")["candidates"].max()
    equal = labels = sorted(candidates.index[candidates == candidates.max()])
    if len(labels) > 1 and beside is not None:
        labels = [label for label in labels if _is_tuned_like(runs[runs["method"] == label], beside)]
    if len(labels) != 1:
        raise AmbiguousError(
            f"one {variant.title}, where {', '.join(equal)} differ in values set by hand and none was chosen from more "
            "candidates"
        )
    return runs[runs["method"] == labels[0]]


def _is_tuned_like(runs: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether runs have the values in `TUNED` of other runs with the same noise and seed, where both have values."""
    pairs = runs[[*PAIRED_BY, "hyperparameters"]].merge(others[[*PAIRED_BY, "hyperparameters"]], on=PAIRED_BY)
    settings = pairs[["hyperparameters_x", "hyperparameters_y"]].drop_duplicates()
    both = [(json.loads(these), json.loads(those)) for these, those in settings.itertuples(index=False)]
    return bool(both) and all(
        these[name] == those[name]
        for these, those in both
        for name in TUNED
        if name in these and name in those
    )


def unequal_choices(first: pd.DataFrame, second: pd.DataFrame, titles: tuple[str, str]) -> str:
    """A sentence where one method's hyper-parameters were chosen from candidates and the other's were set by hand.

    It is empty where both were chosen, both set by hand, or one has none of those in `TUNED`.
    """
    if "candidates" not in first or first.empty or second.empty:
        return ""
    candidates = [int(runs["candidates"].max()) for runs in (first, second)]
    sides = sorted(zip(candidates, titles, (first, second), strict=True), key=lambda side: side[0])
    (fewest, by_hand, runs), (most, chosen, _) = sides
    has_values = any(option_of(runs, name).fillna(0).ne(0).any() for name in TUNED)
    if not (fewest == 1 < most and has_values):
        return ""
    return f"{chosen} was chosen from {most} candidates, {by_hand} has values set by hand."


def _with_larger_radius(table: pd.DataFrame, runs: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    compared = select(table, replace(variant, larger_radius=False))
    radius = compared.assign(compared_rho=option_of(compared, "rho"))[[*PAIRED_BY, "compared_rho"]]
    rho = option_of(runs, "rho").to_numpy()
    smallest = runs[PAIRED_BY].merge(radius, on=PAIRED_BY, how="left")["compared_rho"].to_numpy()
    larger, rho = runs[rho > smallest], rho[rho > smallest]
    if larger.empty:
        return larger
    mean = larger.assign(rho=rho).groupby("method")["rho"].mean()
    return larger[larger["method"] == min(mean.index, key=lambda label: (mean[label], label))]


def _equal(runs: pd.DataFrame, others: pd.DataFrame, equal: Equal) -> pd.DataFrame:
    """For each cell, the runs of the label whose geometric mean is nearest to that of other runs.

    A label that lost a value in a cell cannot be chosen there. Where the other runs lost a value, no label is chosen.
    """
    if equal.quantity not in runs:
        return runs.iloc[:0]
    aim = _logarithms(others, equal.quantity).groupby(CELL)["log"].agg(_complete_mean).rename("aim")
    means = _logarithms(runs, equal.quantity).groupby([*CELL, "method"])["log"].agg(_complete_mean)
    found = means.reset_index().merge(aim.reset_index(), on=CELL)
    found["apart"] = (found["log"] - found["aim"]).abs()
    # of labels with equal runs, such as a chosen radius and the same one set by hand, the first one counts
    near = found[found["apart"] < np.log(equal.within)].sort_values(["apart", "method"])
    chosen = pd.MultiIndex.from_frame(near.drop_duplicates(CELL)[[*CELL, "method"]])
    return runs[pd.MultiIndex.from_frame(runs[[*CELL, "method"]]).isin(chosen)]


def _logarithms(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The cell, label and logarithm of a positive quantity of each run; NaN if its value is lost."""
    is_there = quantity(name).values(table).notna()
    return table[[*CELL, "method"]].assign(log=np.log(table[name].astype(np.float64).where(is_there)))


def _complete_mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def distinct_methods(table: pd.DataFrame, values: Sequence[pd.Series]) -> tuple[pd.DataFrame, list[str]]:
    """The table without methods whose runs all equal runs of other methods, and these methods.

    A method whose radius was chosen often equals, at each rate, one of the methods with a fixed radius. As units of a
    comparison over methods such runs would count twice.

    Args:
        table: the runs. Equal ones have the same accuracy, loss and values to the last bit.
        values: the compared quantities, a number of each run.
    """
    told = pd.concat([table[[*PAIRED_BY, "train_loss", "test_accuracy"]], *values], axis=1)
    # NaN for runs without a number, because two runs that diverged are not equal
    run = told.set_axis(range(told.shape[1]), axis=1).groupby(list(range(told.shape[1]))).ngroup()
    left_out = []
    for method in sorted(table["method"].unique()):
        is_of_method = table["method"] == method
        of_method, of_others = run[is_of_method], run[~is_of_method]
        if of_method.notna().all() and of_method.isin(of_others).all():
            table, run = table[~is_of_method], of_others
            left_out.append(method)
    return table, left_out


def family_of(runs: pd.DataFrame) -> pd.Series:
    """The family of each run's method. Methods that differ only in the values in `TUNED`, or in chosen options of their
    loss, are one family.

    SAM with three radii is one family. NCSAM with the opposite sign is another family than NCSAM.
    """
    families = {}
    for text in runs["hyperparameters"].unique():
        settings = {name: value for name, value in method_part(json.loads(text)).items() if name not in TUNED}
        families[text] = json.dumps(settings, sort_keys=True)
    return runs["method_name"] + runs["hyperparameters"].map(families)


def option_of(runs: pd.DataFrame, option: str) -> pd.Series:
    """A hyper-parameter of each run; NaN if the run's method lacks it."""
    values = [json.loads(text).get(option, np.nan) for text in runs["hyperparameters"]]
    return pd.Series(values, index=runs.index, dtype=np.float64)


def hyperparameters_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The method's name and every hyper-parameter that varies, one column each. They may explain how runs differ."""
    settings = pd.DataFrame([json.loads(text) for text in runs["hyperparameters"]], index=runs.index)
    found = settings.assign(method_name=runs["method_name"]).astype(str)
    return found[sorted(str(name) for name in found if found[name].nunique() > 1)]


def series_over(table: pd.DataFrame, variant: Variant, option: str) -> pd.DataFrame:
    """The runs of a variant that differ only in one hyper-parameter, which becomes the column `option`.

    Of several such series, the one with the most values is taken. Of equally long ones, the first by its other
    hyper-parameters is taken.
    """
    runs = runs_of(table, variant)
    runs = runs.assign(option=option_of(runs, option))
    others = []
    for text in runs["hyperparameters"]:
        settings = json.loads(text)
        settings.pop(option, None)
        others.append(json.dumps(settings, sort_keys=True))
    runs = (
        runs.assign(others=others).dropna(subset="option").drop_duplicates([*PAIRED_BY, "option", "others"])
    )
    if runs.empty:
        return runs
    counts = runs.groupby("others")["option"].nunique()
    return runs[runs["others"] == min(counts.index, key=lambda text: (-counts[text], text))]
