"""The verdicts in full: one block a judged claim, with the numbers behind each prediction and control."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from analysis.claims import Claim, Judgement
from analysis.claims.effect import NOT_MEASURED, Effect
from analysis.claims.wording import WHICH_RUNS, deciding_p, without_number
from analysis.report.numbers import interval
from analysis.report.summary import (
    PER_RATE,
    SHORT,
    STYLES,
    WHAT_P_MEANS,
    WHAT_PER_RATE_MEANS,
    WHAT_THE_STAR_MEANS,
    deciding,
    print_unmeasured,
    short_unit,
    short_verdict,
)
from landscape.results.wording import counted

INDENT = 9
"""Columns of the labels at the left."""
WHAT_FAMILIES_ARE = "Controls are corrected apart, so that a number of two claims may have two p"
WHAT_IS_LISTED = "What each claim predicts"
WHAT_CHANGED_MEANS = (
    "changed: what was changed in a claim after results had been seen; the others were written before"
)
MOST_MISSING = 3
"""Missing runs that are named; the report names all."""


def print_details(judgements: list[Judgement], console: Console, *, with_unmeasured: bool = False) -> None:
    """Prints a block for each judged claim, and the ids of those that are not measured in one line.

    A block has the statement and the verdict; each prediction with its effect, interval, p after Holm's correction and
    number of units; what the verdict is about, and if it is open, what a verdict takes; the controls; missing runs.

    Args:
        judgements: the claims.
        console: where they are printed.
        with_unmeasured: whether a claim that is not measured has a block too, which says what the claim needs.
    """
    judged = [judgement for judgement in judgements if judgement.verdict != NOT_MEASURED]
    for judgement in judgements if with_unmeasured else judged:
        claim = judgement.claim
        measured = f" ({judgement.measured})" if judgement.measured else ""
        style = STYLES.get(judgement.verdict, "yellow")
        _print_line(console, claim.id, judgement.verdict + measured, f"bold {style}")
        _print_line(console, "", f"{claim.statement} ({claim.place})", "bold")
        if claim.changed:
            _print_line(console, "changed", claim.changed, "dim")
        for label, text, how in _lines(judgement):
            _print_line(console, label, text, how)
        console.print()
    if judged:
        effects = [effect for each in judged for effect in (*each.effects, *each.controls)]
        has_star = any(effect.verdict in SHORT for effect in effects)
        has_rate = any(PER_RATE in f" {effect.unit}" for effect in effects)
        marks = [WHAT_THE_STAR_MEANS] * has_star + [WHAT_PER_RATE_MEANS] * has_rate
        for words in (WHAT_P_MEANS, WHICH_RUNS, WHAT_FAMILIES_ARE, *marks):
            _print_line(console, "", words, "dim", indent=0)
    if not with_unmeasured:
        print_unmeasured(judgements, console)


def _lines(judgement: Judgement) -> Iterator[tuple[str, str, str]]:
    """The label, the text and the style of each line of a claim's block."""
    several = len(judgement.effects) > 1
    for number, effect in enumerate(judgement.effects, 1):
        label = f"{judgement.claim.id}.{number}" if several else "effect"
        lost = f", {effect.lost} lost" if effect.lost else ""
        units = f" ({counted(effect.samples, effect.counted)}{lost})"
        yield label, _numbers(effect) + (units if effect.verdict != NOT_MEASURED else ""), ""
    if judgement.verdict != NOT_MEASURED:
        decides = judgement.effects.index(deciding(judgement))
        yield "", (f"{decides + 1} decides. " if several else "") + judgement.conclusions[decides], "italic"
    for effect in judgement.controls:
        if effect.verdict != NOT_MEASURED:
            yield "control", _numbers(effect), "dim"
    unmeasured = sum(effect.verdict == NOT_MEASURED for effect in judgement.controls)
    if unmeasured:
        yield "control", f"{unmeasured} more not measured", "dim"
    for text in judgement.missing[:MOST_MISSING]:
        yield "missing", text, "dim"
    if len(judgement.missing) > MOST_MISSING:
        count = len(judgement.missing) - MOST_MISSING
        yield "missing", f"{count} more, which the report lists", "dim"


def _numbers(effect: Effect) -> str:
    """The prediction in words, its verdict and its numbers."""
    if effect.verdict == NOT_MEASURED:
        return f"{effect.name}: not measured, needs {effect.needs}"
    if not math.isfinite(effect.estimate):
        return f"{effect.name}: {effect.verdict}, no number: {without_number(effect)}"
    size = f"{interval(effect)} {short_unit(effect)}".rstrip()
    return f"{effect.name}: {short_verdict(effect.verdict)}, {size}, {deciding_p(effect)}"


def print_claims(claims: Iterable[Claim], console: Console) -> None:
    """Prints what each claim predicts, and which runs its predictions need."""
    for line in (WHAT_IS_LISTED, WHAT_CHANGED_MEANS):
        _print_line(console, "", line, "bold", indent=0)
    for claim in claims:
        console.print()
        _print_line(console, claim.id, f"{claim.statement} ({claim.place})", "bold")
        for number, prediction in enumerate(claim.predictions, 1):
            label = f"{claim.id}.{number}" if len(claim.predictions) > 1 else "predicts"
            _print_line(console, label, prediction.describe(), "")
        for prediction in claim.controls:
            _print_line(console, "control", prediction.describe(), "dim")
        if claim.changed:
            _print_line(console, "changed", claim.changed, "")
        needs = list(dict.fromkeys(prediction.runs() for prediction in claim.predictions))
        _print_line(console, "needs", "; ".join(needs), "dim")


UNBROKEN = re.compile(r"[+-]\S+ \[\S+ \S+\],?|(?:p )?[<>=] \S+|\S+")
"""An effect with its interval, a comparison with a number, or a word."""


def _print_line(console: Console, label: str, text: str, style: str, indent: int = INDENT) -> None:
    """Prints a text beside a label. A line that is too long is broken, but not within a number and its interval."""
    lines, width = [""], max(1, console.width - indent)
    for piece in UNBROKEN.findall(text):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(piece) > width:
            lines.append("")
        lines[-1] += f" {piece}" if lines[-1] else piece
    for number, line in enumerate(lines):
        beside = Text(f"{label if number == 0 else '':<{indent}}{line}", style=style)
        console.print(beside, soft_wrap=True)
