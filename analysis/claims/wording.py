"""What an effect's numbers come to, in a sentence."""

from __future__ import annotations

import math

from analysis.statistics import (
    CONTRADICTED,
    EQUIVALENT,
    INCONCLUSIVE,
    MIXED,
    NOT_MEASURED,
    SIGNIFICANCE,
    Effect,
    detectable_effect,
    samples_needed,
)


def conclusion(effect: Effect) -> str:
    """Why the verdict is what it is; where it is open, what could still be concluded and what it would take."""
    verdict = effect.verdict
    if verdict == NOT_MEASURED:
        return f"Not measured: needs {effect.needs}."
    sentences = []
    if effect.lost:
        sentences.append(
            f"{effect.lost} of {effect.lost + effect.samples} {effect.counted} lost to divergence or missing "
            f"measurements; the {effect.samples} left would say: {effect.verdict_of_the_rest}. They are a choice of "
            "the fittest, so this is no verdict."
        )
    elif effect.missing:
        sentences.append(
            f"Holds for the {effect.samples} {effect.counted} that are there; the grid has {_cells(effect)} more."
        )
    if verdict == MIXED:
        sentences.append(_mixed(effect))
    elif effect.verdict_of_the_rest == EQUIVALENT:
        sentences.append(f"Smaller than the margin of {effect.margin:g} {effect.unit}.".replace(" .", "."))
    elif verdict == CONTRADICTED and effect.predicted == 0:
        sentences.append("There is a difference beyond the margin, where none was predicted.")
    elif verdict == INCONCLUSIVE and not effect.lost:
        sentences.append(_open(effect))
    return " ".join(sentences)


def by_part(effect: Effect) -> str:
    """The estimates at each noise rate."""
    return ", ".join(f"{part.name}: {part.estimate:+.3g}" for part in effect.parts)


def _cells(effect: Effect) -> str:
    return f"{len(effect.missing)} part{'s' if len(effect.missing) > 1 else ''}"


def _mixed(effect: Effect) -> str:
    if effect.violations:
        return f"Does not hold in {effect.violations} run{'s' if effect.violations > 1 else ''}."
    return f"The sign depends on the noise rate ({by_part(effect)})."


def _open(effect: Effect) -> str:
    """What the study could have found and what size it would take."""
    level = SIGNIFICANCE / effect.tests
    unit = f" {effect.unit}" if effect.unit else ""
    if effect.samples < 2:
        return f"{effect.samples} {effect.counted} give no test."
    sentences = []
    smallest = detectable_effect(effect)
    if effect.smallest_p >= level:
        sentences.append(
            f"{effect.samples} {effect.counted} cannot decide: p cannot be below {effect.smallest_p:.2g}, and "
            f"{effect.tests} tests in the family ask for {level:.2g}."
        )
    elif math.isfinite(smallest):
        least = (
            smallest + effect.margin if effect.predicted == 0 and math.isfinite(effect.margin) else smallest
        )
        sentences.append(
            f"An effect of {least:.2g}{unit} would have been found four times in five with these "
            f"{effect.samples} {effect.counted}."
        )
    size = effect.margin if math.isfinite(effect.margin) else effect.estimate
    needed = samples_needed(effect, size)
    if math.isfinite(needed):
        name = "the margin" if math.isfinite(effect.margin) else "the estimate"
        sentences.append(
            f"To find one as large as {name} ({abs(size):.2g}{unit}) takes about {needed:.0f} {effect.counted}."
        )
    return " ".join(sentences)
