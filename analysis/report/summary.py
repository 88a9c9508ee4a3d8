"""The verdicts on one screen: one line for each judged claim, and all others in one line."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from analysis.claims import BUILT_IN, Judgement
from analysis.claims.effect import (
    CONTRADICTED,
    CONTRADICTED_HERE,
    IN_THESE_CELLS,
    INCONCLUSIVE,
    NOT_MEASURED,
    OPPOSITE_SIGNS,
    SUPPORTED,
    SUPPORTED_HERE,
    WITHIN_THE_MARGIN,
    Effect,
)
from analysis.claims.wording import WHICH_RUNS, deciding_p
from analysis.report.numbers import interval
from analysis.report.results import NARROW

STYLES = {
    SUPPORTED: "green",
    SUPPORTED_HERE: "green",
    CONTRADICTED: "red",
    CONTRADICTED_HERE: "red",
}
LEAST_OF_PREDICTION = 24
"""Columns, with the gap before them, from which on a part of a prediction says something."""
PER_RATE, SHORT_PER_RATE = " per 100% wrong labels", "/100%"
"""The end of a slope's unit, and what stands for that in a narrow column."""
SHORT_TESTS = {OPPOSITE_SIGNS: "signs", WITHIN_THE_MARGIN: "margin"}
"""One word for each test that is not of the effect, beside its p in a narrow column."""
SHORT = {here: f"{general}*" for general, here in IN_THESE_CELLS.items()}
"""One word for each verdict that holds only for the cells at hand."""
WHAT_THE_STAR_MEANS = "*: in these cells; there is no conclusion about others"
WHAT_P_MEANS = (
    "p: corrected over the claims of one letter; intervals are not, and may leave out 0 beside p > 0.05"
)
WHAT_SIGNS_MEANS = "signs: this p is of the test of opposite signs, not of the mean effect"
WHAT_MARGIN_MEANS = "margin: this p is of the test that the effect is within the margin"
FEW_SEEDS = 3
"""Seeds in each cell up to which their number is a likely reason for an open verdict."""
FOUND_BY_SEEDS = {2: "at most 10%", 3: "45%", 5: "74%", 8: "80%"}
"""Seeds in each cell -> share of studies in which an effect is found that Welch's test would find in 80%."""
OTHERS = "claims that come with ncsam:"
LEAST_OF_QUANTITY = 12
"""Columns of a quantity's words from which on they say something."""
WHAT_PER_RATE_MEANS = f"{SHORT_PER_RATE}:{PER_RATE}"


def print_verdicts(judgements: list[Judgement], console: Console) -> None:
    """Prints one line a judged claim, and all that are not measured in one."""
    judged = [judgement for judgement in judgements if judgement.verdict != NOT_MEASURED]
    if judged:
        lines, has_words = _verdicts(judged, console.width)
        own = sum(judgement.claim.id not in BUILT_IN for judgement in judged)
        if 0 < own < len(judged):
            lines.insert(1 + own, Text(OTHERS, style="dim"))
        for line in lines:
            # print() joins its arguments into a text that forgets how the line is cut
            if console.width < NARROW:
                console.print(line, soft_wrap=True)
            else:
                console.print(line, no_wrap=True, overflow="ellipsis")
        console.print(Text("\n".join(_what_marks_mean(judged, has_words))), style="dim")
    print_unmeasured(judgements, console)


def print_unmeasured(judgements: list[Judgement], console: Console) -> None:
    """Prints the ids of the claims that are not measured, in one line."""
    unmeasured = [judgement.claim.id for judgement in judgements if judgement.verdict == NOT_MEASURED]
    if unmeasured:
        console.print(Text(f"not measured: {' '.join(unmeasured)}"))


def _verdicts(judged: list[Judgement], columns: int) -> tuple[list[Text], bool]:
    """Lines of equal columns, as many as fit whole, and whether the prediction's words are among them.

    Of the last column, the prediction in words, as much is shown as fits.
    """
    rows = [["", "verdict", "effect [95% interval]", "p", "the prediction that decides"]]
    rows += [_cells(judgement) for judgement in judged]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    up_to_p = sum(widths[:4]) + 2 * 3
    count = 3 if up_to_p > columns else 4 if up_to_p + LEAST_OF_PREDICTION > columns else 5
    shown, widths = [row[:count] for row in rows], widths[:count]
    if count == 5:
        room = columns - up_to_p - 2
        shown = [[*row[:4], _fitted(row[4], room)] for row in shown]
        widths[4] = 0
    styles = ["bold", *(STYLES.get(judgement.verdict, "yellow") for judgement in judged)]
    lines = []
    for row, style in zip(shown, styles, strict=True):
        line = Text()
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            line.append(cell + " " * (max(0, width - cell_len(cell)) + 2), style=style if index < 2 else "")
        line.rstrip()
        lines.append(line)
    return lines, count == 5


def _fitted(prediction: str, columns: int) -> str:
    """The words of a prediction; where they are too long, its quantity is cut, and what is compared stays whole."""
    quantity, _, compared = prediction.rpartition(": ")
    room = columns - cell_len(f"…: {compared}")
    if cell_len(prediction) <= columns or not quantity or room < LEAST_OF_QUANTITY:
        return prediction
    return f"{set_cell_size(quantity, room).rstrip()}…: {compared}"


def _cells(judgement: Judgement) -> list[str]:
    effect = deciding(judgement)
    verdict = short_verdict(judgement.verdict)
    return [
        name_of_deciding(judgement),
        f"{verdict} {_share_measured(judgement)}" if judgement.measured else verdict,
        f"{interval(effect)} {short_unit(effect)}".strip(),
        _short_p(effect),
        effect.name,
    ]


def _short_p(effect: Effect) -> str:
    """The p-value behind the verdict, with one word for its test where that is not of the effect: "0.054 signs"."""
    text = deciding_p(effect, letter=False)
    for test, short in SHORT_TESTS.items():
        text = text.replace(f", {test}", f" {short}")
    return text


def short_verdict(verdict: str) -> str:
    """One word for a verdict. A star marks the verdicts about the cells at hand."""
    return SHORT.get(verdict, verdict)


def short_unit(effect: Effect) -> str:
    """The unit of an effect; a slope is one per 100%."""
    return f" {effect.unit}".replace(PER_RATE, SHORT_PER_RATE).strip()


def deciding(judgement: Judgement) -> Effect:
    """The first effect with the verdict of the claim; if there is none, the first one with a number."""
    measured = [effect for effect in judgement.effects if effect.verdict != NOT_MEASURED]
    with_number = [effect for effect in measured if math.isfinite(effect.estimate)] or measured
    return next((effect for effect in with_number if effect.verdict == judgement.verdict), with_number[0])


def name_of_deciding(judgement: Judgement) -> str:
    """The claim, with the number of the prediction that decides if there are several: L2.3."""
    if len(judgement.effects) == 1:
        return judgement.claim.id
    return f"{judgement.claim.id}.{judgement.effects.index(deciding(judgement)) + 1}"


def _share_measured(judgement: Judgement) -> str:
    count = sum(effect.verdict != NOT_MEASURED for effect in judgement.effects)
    return f"{count}/{len(judgement.effects)}"


def _what_marks_mean(judged: list[Judgement], has_words: bool) -> list[str]:
    lines = [WHAT_P_MEANS, WHICH_RUNS]
    tests = {deciding(judgement).deciding_test_in_short for judgement in judged}
    lines += [WHAT_SIGNS_MEANS] if OPPOSITE_SIGNS in tests else []
    lines += [WHAT_MARGIN_MEANS] if WITHIN_THE_MARGIN in tests else []
    if not has_words and any(len(judgement.effects) > 1 for judgement in judged):
        lines.append(".1: prediction 1 of the claim; in words: ncsam claims --list")
    if any(judgement.verdict in SHORT for judgement in judged):
        lines.append(WHAT_THE_STAR_MEANS)
    if any(f" {deciding(judgement).unit}".endswith(PER_RATE) for judgement in judged):
        lines.append(WHAT_PER_RATE_MEANS)
    lines += _few_seeds(judged)
    partly = [judgement for judgement in judged if judgement.measured]
    if partly:
        lines.append(f"{_share_measured(partly[0])}: the share of the claim's predictions that was measured")
    return lines


def _few_seeds(judged: list[Judgement]) -> list[str]:
    """The open verdicts for which few seeds are a likely reason, and what more seeds would find."""
    seeds = {
        name_of_deciding(judgement): effect.seeds_in_cells
        for judgement in judged
        # a claim may also be open because some of its predictions were not measured
        if (effect := deciding(judgement)).verdict == INCONCLUSIVE and not effect.lost
    }
    few = {name: count for name, count in seeds.items() if 1 < count <= FEW_SEEDS}
    if not few:
        return []
    counts = " or ".join(map(str, sorted(set(few.values()))))
    found = ", ".join(f"{share} with {count}" for count, share in FOUND_BY_SEEDS.items())
    return [
        f"few seeds: {' '.join(few)} may be open for want of them, with {counts} in each cell. An effect that Welch's "
        f"test would find in 80% of studies is found in {found}"
    ]
