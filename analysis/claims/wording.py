"""The conclusion from an effect's numbers, in a few sentences."""

from __future__ import annotations

import math

from analysis.claims.coverage import NO_RUN, NOT_CONVERGED
from analysis.claims.effect import (
    CONTRADICTED,
    EQUIVALENT,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SIGNIFICANCE,
    VACUOUS,
    Effect,
)
from analysis.statistics import (
    FEWEST_DATA_SETS,
    LIKE_THESE,
    THESE,
    Test,
    detectable_effect,
    draws_needed,
    units_for_equivalence,
    units_needed,
)
from landscape.results.wording import counted

WHICH_RUNS = "runs: at noise rates above 0, unless a name says otherwise"
"""What no prediction of runs with wrong labels repeats in its name."""
SMALLEST_P = 0.001
"""Smaller p-values are not told apart in print."""
MOST_DIGITS = 15
MANY_TIMES = 100
"""A study that many times as large, whose errors are a tenth, is no plan: its size rests on an uncertain spread."""
MOST_NAMED = 2
"""Runs without partner that a conclusion names."""


def p_value(p: float) -> str:
    """A p-value: "0.031", "< 0.001", or a dash if there is none.

    It has three digits, or as many as show on which side of the significance level it lies: "0.0498".
    """
    if not p >= SMALLEST_P:
        return f"< {SMALLEST_P}" if math.isfinite(p) else "–"
    texts = (f"{p:.{digits}f}" for digits in range(3, MOST_DIGITS + 1))
    return next((text for text in texts if (float(text) < SIGNIFICANCE) == (p < SIGNIFICANCE)), repr(p))


def p_in_words(p: float) -> str:
    """A p-value with its letter: "p = 0.031" or "p < 0.001"."""
    number = p_value(p)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def deciding_p(effect: Effect, *, letter: bool = True) -> str:
    """The p-value behind the verdict, and its test where that is not of the effect: "p = 0.054, opposite signs".

    Args:
        effect: the judged effect.
        letter: whether the number has its letter.
    """
    p, test = effect.deciding_p, effect.deciding_test_in_short
    number = p_in_words(p) if letter else p_value(p)
    return f"{number}, {test}" if test and math.isfinite(p) else number


def conclusion(effect: Effect) -> str:
    """What the verdict is about, the reason for it, and if it is open, what a verdict would take."""
    verdict = effect.verdict
    if verdict == NOT_MEASURED:
        return f"Not measured: needs {effect.needs}."
    if not effect.finding.places and not effect.lost and effect.finding.these.counted == "pairs":
        return f"No seed is common to both sides, so that there is no pair: {_without_partner(effect)}."
    sentences = [_about(effect), _left_out(effect), *_coverage(effect)]
    without_losses = effect.verdict_of_the_rest
    if verdict == MIXED:
        sentences.append(f"The sign depends on the {_place(effect)} ({by_part(effect)}).")
    elif verdict == VACUOUS:
        sentences.append("It cannot fail in any of these runs, so they are no evidence for it.")
    elif without_losses.startswith(EQUIVALENT):
        sentences.append(f"Smaller than the margin of {effect.margin:g} {effect.unit}.".replace(" .", "."))
    elif verdict.startswith(CONTRADICTED) and effect.predicted == 0:
        sentences.append("There is a difference beyond the margin, where none was predicted.")
    elif verdict == INCONCLUSIVE and not effect.lost:
        sentences.append(_open(effect))
    sentences.append(effect.note)
    return " ".join(sentence for sentence in sentences if sentence)


def _without_partner(effect: Effect) -> str:
    """The first runs that lack their partner."""
    named = [text for text in effect.missing if text.endswith(NO_RUN)]
    return "; ".join(named[:MOST_NAMED]) + (
        f"; {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    )


def by_part(effect: Effect) -> str:
    """The estimates in each cell or series, in words."""
    return ", ".join(f"{part.name}: {part.estimate:+.3g}" for part in effect.parts)


def _place(effect: Effect) -> str:
    return "cell" if effect.finding.place == "cells" else effect.finding.place


def _about(effect: Effect) -> str:
    """The cells or series that the verdict is about, and the answer to the other question."""
    finding = effect.finding
    named = f"{finding.places} {_place(effect) if finding.places == 1 else finding.place}"
    if effect.estimand == THESE:
        whose = "this" if finding.places == 1 else "these"
        if not finding.data_sets:
            return f"About {whose} {named}."
        of_data = f" of {counted(finding.data_sets, 'data sets')}"
        return (
            f"About {whose} {named}{of_data}; {LIKE_THESE} are judged from {FEWEST_DATA_SETS} data sets on."
        )
    said = f"About {LIKE_THESE} {finding.data_sets} data sets"
    these = finding.these
    if not math.isfinite(these.low) or these.method == effect.test.method:
        return f"{said}."
    low, high = (effect.within(end, these.estimate) for end in (these.low, these.high))
    return f"{said}; of the {named} themselves the 95% interval is [{low:+.3g}, {high:+.3g}]."


def _left_out(effect: Effect) -> str:
    """The cells whose only value says nothing of their spread."""
    single = effect.finding.single
    if not single:
        return ""
    named = ", ".join(single[:MOST_NAMED]) + (
        f" and {len(single) - MOST_NAMED} more" if len(single) > MOST_NAMED else ""
    )
    has, their = ("has", "its") if len(single) == 1 else ("have", "their")
    said = f"{named} {has} one value, which says nothing of {their} spread"
    if not math.isfinite(effect.finding.these.standard_error):
        return f"{said}; without it there is no test of these cells."
    where = "what is said of these cells" if effect.estimand == LIKE_THESE else "the test"
    return f"{said}: left out of {where}."


def _coverage(effect: Effect) -> list[str]:
    """The runs that did not converge, were lost, or are missing."""
    found = effect.coverage
    sentences = []
    if found.not_converged:
        sentences.append(
            f"{found.not_converged} of {found.runs} runs not converged; their values are not used."
        )
    if effect.lost:
        these = effect.finding.these
        why = f" ({', '.join(found.reasons)})" if found.reasons else ""
        sentences.append(
            f"{counted(effect.lost, these.counted)} lost{why}; the {these.units} left would say: "
            f"{effect.verdict_of_the_rest}. "
            "What is lost may differ from what is left, so this is no verdict."
        )
        if NOT_CONVERGED in found.reasons:
            sentences.append("Measure with more products or steps: ncsam measure.")
    elif found.missing and effect.finding.these.units:
        more = counted(len(found.missing), "parts")
        sentences.append(
            f"Holds for the {counted(effect.finding.these.units, effect.finding.these.counted)} that "
            f"{'is' if effect.finding.these.units == 1 else 'are'} there; the grid has {more} more."
        )
    return sentences


def _open(effect: Effect) -> str:
    """Why no verdict was possible, what the study could have found, and what size of study would suffice."""
    if effect.may_reverse:
        before, after = effect.finding.reversal_p, effect.deciding_p
        return (
            f"The sign may depend on the {_place(effect)} ({by_part(effect)}): {p_in_words(before)} before the "
            f"correction for {effect.tests} tests, {p_value(after)} after."
        )
    test = effect.test
    level = SIGNIFICANCE / effect.tests
    if test.is_without_spread and not math.isfinite(test.p_value):
        return _no_test_without_spread(effect)
    if not math.isfinite(test.p_value):
        give = "gives" if test.units == 1 else "give"
        return f"{counted(test.units, test.counted)} {give} no test."
    if test.counted == "draws":
        needed = draws_needed(effect.null[1], level)
        return f"Without any failure it takes {needed} draws; there are {test.units}."
    if test.is_without_spread:
        cannot = _could_have_found(effect, test, level) if test.smallest_p >= level else []
        return " ".join([*cannot, f"The {test.counted} have no spread, from which a size could be planned."])
    return " ".join(_power(effect, test, level))


def _no_test_without_spread(effect: Effect) -> str:
    """Why values without spread have no test."""
    counted = effect.test.counted
    if effect.finding.place == "series":
        return f"The {counted} have no spread within cells, which a test of their slope needs."
    cells = f" ({by_part(effect)})" if effect.parts else ""
    return f"The {counted} have no spread within cells, and the cells do not all lie on one side{cells}: no test."


def without_number(effect: Effect) -> str:
    """Why a measured effect has no number: the runs that did not converge, were lost or are missing."""
    found = effect.coverage
    parts = [f"{found.not_converged} of {found.runs} runs not converged"] if found.not_converged else []
    parts += effect.missing[:MOST_NAMED]
    if len(effect.missing) > MOST_NAMED:
        parts.append(f"{len(effect.missing) - MOST_NAMED} more")
    return "; ".join(parts) or effect.test.method


def _power(effect: Effect, test: Test, level: float) -> list[str]:
    """What the study could have found, and the size that it takes. Where that is absurd, only that it cannot decide."""
    aim, needed = _needed(effect, test, level)
    if test.smallest_p < level and needed > MANY_TIMES * test.units:
        return [_cannot_decide(test)]
    takes = f"{aim} takes about {needed:.0f} {test.counted}."
    return [*_could_have_found(effect, test, level), *([takes] if math.isfinite(needed) else [])]


def _cannot_decide(test: Test) -> str:
    return f"These {counted(test.units, test.counted)} cannot decide this."


def _could_have_found(effect: Effect, test: Test, level: float) -> list[str]:
    unit = f" {effect.unit}" if effect.unit else ""
    if test.smallest_p >= level:
        return [
            f"{counted(test.units, test.counted)} cannot decide: p cannot be below {test.smallest_p:.2g}, and "
            f"{effect.tests} tests in the family ask for {level:.2g}."
        ]
    found = detectable_effect(test, level) + max(effect.null)
    if not math.isfinite(found):
        return []
    if found >= max(map(abs, effect.limits)):
        return [_cannot_decide(test)]
    return [
        f"An effect of {found:.2g}{unit} would have been found four times in five with these {test.units} "
        f"{test.counted}."
    ]


def _needed(effect: Effect, test: Test, level: float) -> tuple[str, float]:
    """What the prediction needs, and the number of units that find it four times in five; NaN if it is not known."""
    unit = f" {effect.unit}" if effect.unit else ""
    if effect.predicted == 0:
        needed = units_for_equivalence(test, effect.margin, SIGNIFICANCE / effect.equivalences)
        aim = f"To show that there is none beyond the margin ({effect.margin:.2g}{unit}), if there is none,"
    elif effect.null[0] == effect.null[1] != 0:
        needed = units_needed(test, effect.null[0], level)
        aim = f"To show that it is not {abs(effect.null[0]):.2g}{unit} on the other side, if it is zero,"
    else:
        has_margin = math.isfinite(effect.margin)
        size = effect.margin if has_margin else effect.estimate
        needed = units_needed(test, size, level)
        aim = f"To find one as large as {'the margin' if has_margin else 'the estimate'} ({abs(size):.2g}{unit})"
    return aim, needed
