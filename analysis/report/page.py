"""The report of a study: a self-contained HTML page, a Markdown table for an appendix, and a table of all runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import figures
from analysis import store
from analysis.claims import Judgement, judge
from analysis.claims.effect import NOT_MEASURED, VERDICTS, Effect
from analysis.claims.wording import WHICH_RUNS, conclusion, deciding_p, p_in_words
from analysis.plan import read_study
from analysis.report.answer import answer
from analysis.report.chosen import claims_of
from analysis.report.numbers import interval, spread
from analysis.report.pictures import WIDTH, embedded, landscape_of_two, landscapes, results_shown, scatter
from analysis.report.results import COLUMNS, MEANING, rows_of_noise
from analysis.report.summary import deciding
from landscape.results.wording import counted, percent

Draw = Callable[[pd.DataFrame, pd.DataFrame], Figure | None]
"""(runs, histories) -> a figure, or None if they hold no data for it."""


def _alignment(runs: pd.DataFrame, histories: pd.DataFrame) -> Figure | None:
    del runs
    noisy = histories[(histories["noise_rate"] > 0) & histories["cos_plus_clean"].notna()]
    return figures.alignment(histories, noisy["method"].iloc[0], width=WIDTH) if len(noisy) else None


FIGURES: dict[str, Draw] = {
    "M3": _alignment,
    "L1": lambda runs, _: figures.curvature(runs, width=WIDTH),
    "L3": lambda runs, _: figures.sharpness_accuracy(runs, width=WIDTH),
    "G2": lambda _, histories: figures.training_curves(histories, width=WIDTH),
}
"""Claim -> figure of its data. Every claim also has a figure of its effects."""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes words that begin with one of these for a formula."""


def write_report(
    root: Path, *, judgements: list[Judgement] | None = None, parquet: bool = False
) -> list[Path]:
    """Writes `report.html`, `claims.md` and `runs.csv` into a study's folder, from its files alone.

    Args:
        root: the study's folder.
        judgements: the judgements of the study; if None, they are made here.
        parquet: whether the runs are also written as `runs.parquet`, the same table with its types.

    Raises:
        FileNotFoundError: the folder is no study's.
        StoreError: no run has finished.
        ValueError: Parquet is asked for, but no package that writes it is installed.
    """
    if parquet and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("--parquet: needs pyarrow; install 'ncsam[parquet]'")
    table = store.read_table(root)
    state = store.unfinished(root)
    if judgements is None:
        judgements = judge(store.with_failed(table.assign(study=0), [state]), claims_of([root]))
    outputs = {
        "report.html": _page(root, table, judgements, state),
        "claims.md": markdown(judgements),
        "runs.csv": csv(table),
    }
    for name, text in outputs.items():
        store.write_text(root / name, text)
    written = [root / name for name in outputs]
    if parquet:
        written.append(root / "runs.parquet")
        store.write_bytes(written[-1], table.to_parquet(engine="pyarrow", index=False))
    return written


def csv(table: pd.DataFrame) -> str:
    """The table as CSV. An apostrophe is put before words that a spreadsheet would take for a formula."""
    text = table.copy()
    for name in text.select_dtypes(exclude=["number", "bool"]):
        text[name] = [f"'{word}" if word.startswith(FORMULA) else word for word in map(str, text[name])]
    return text.to_csv(index=False)


def markdown(judgements: list[Judgement]) -> str:
    """The predictions of all claims as a Markdown table, for the appendix of a paper."""
    head = ["claim", "prediction", "estimate [95% interval]", "p (Holm)", "n", "verdict"]
    rows = [
        [
            judgement.claim.id,
            effect.name,
            f"{interval(effect)} {effect.unit}".strip(),
            deciding_p(effect, letter=False),
            counted(effect.samples, effect.counted) if effect.samples else "–",
            effect.verdict,
        ]
        for judgement in judgements
        for effect in judgement.effects
    ]
    # a vertical bar would end the cell
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in row) for row in [head, ["---"] * len(head), *rows]
    ]
    return "".join(f"| {line} |\n" for line in lines) + f"\n{WHICH_RUNS}\n"


def _page(root: Path, table: pd.DataFrame, judgements: list[Judgement], state: store.Unfinished) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    study = read_study(root / "study.toml")
    histories = store.read_histories(root)
    results = results_shown(root)
    return environment.get_template("report.html.jinja").render(
        study=study,
        folder=root.as_posix(),
        answer=answer(table, judgements),
        summary=_summary(table),
        landscape=landscape_of_two(results, table),
        scatter=scatter(table),
        landscapes=landscapes(results, table),
        verdicts=VERDICTS,
        sections=[
            _section(judgement, table, histories)
            for judgement in judgements
            if judgement.verdict != NOT_MEASURED
        ],
        unmeasured=[_section(j, table, histories) for j in judgements if j.verdict == NOT_MEASURED],
        columns=COLUMNS,
        meaning=MEANING,
        results=_results(table),
        settings=(root / "study.toml").read_text(encoding="utf-8").split("[resolved]")[0].strip(),
        machines=_machines(root),
        costs=_costs(table),
        selection=_selection_cost(root),
        failures=_failures(root, table, state),
    )


def _summary(table: pd.DataFrame) -> str:
    several = [
        f"{table[name].nunique()} {words if table[name].nunique() == 1 else words + 's'}"
        for name, words in (("method", "method"), ("noise_rate", "noise rate"), ("seed", "seed"))
    ]
    data = ", ".join(sorted(table["dataset"].unique()))
    kinds = ", ".join(sorted(table["noise_kind"].unique()))
    return f"{len(table)} runs on {data} with {kinds} label noise: {', '.join(several)}."


def _section(judgement: Judgement, table: pd.DataFrame, histories: pd.DataFrame) -> dict[str, Any]:
    claim = judgement.claim
    is_measured = judgement.verdict != NOT_MEASURED
    drawn = FIGURES[claim.id](table, histories) if is_measured and claim.id in FIGURES else None
    return {
        **{name: getattr(claim, name) for name in ("id", "statement", "place", "changed")},
        "verdict": judgement.verdict,
        "measured": judgement.measured,
        "p": _deciding_p(judgement),
        "effects": [_shown(effect) for effect in judgement.effects],
        "controls": [_shown(effect) for effect in judgement.controls],
        "forest": _forest(judgement.effects),
        "figures": [(f"The data behind {claim.id}", embedded(drawn))] if drawn else [],
        "missing": judgement.missing,
        "runs": list(dict.fromkeys(prediction.runs() for prediction in claim.predictions)),
    }


def _deciding_p(judgement: Judgement) -> str:
    """The p-value of the effect that decided, as in "p = 0.031"; empty if no effect decided."""
    if judgement.verdict == NOT_MEASURED or deciding(judgement).verdict != judgement.verdict:
        return ""
    return deciding_p(deciding(judgement))


def _shown(effect: Effect) -> dict[str, str]:
    numbers = ""
    if np.isfinite(effect.estimate):
        numbers = (
            f"{interval(effect)} {effect.unit}".rstrip()
            + f"; {p_in_words(effect.deciding_p)} ({effect.deciding_test}, Holm over {effect.tests}); "
            f"n = {counted(effect.samples, effect.counted)}, {effect.estimand}"
        )
    return {
        "name": effect.name,
        "verdict": effect.verdict,
        "numbers": numbers,
        "conclusion": conclusion(effect),
    }


def _forest(effects: list[Effect]) -> str:
    rows = []
    for effect in effects:
        common = {"unit": effect.unit, "margin": effect.margin, "verdict": effect.verdict}
        rows.append({**common, **_place(effect), "is_part": False})
        rows += [
            {
                **common,
                **asdict(part),
                "low": effect.within(part.low, part.estimate),
                "high": effect.within(part.high, part.estimate),
                "is_part": True,
            }
            for part in effect.parts
        ]
    found = pd.DataFrame(rows)
    return embedded(figures.forest(found)) if np.isfinite(found["estimate"]).any() else ""


def _place(effect: Effect) -> dict[str, Any]:
    return {"name": effect.name, "estimate": effect.estimate, "low": effect.low, "high": effect.high}


def _results(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "noise": noise,
            "methods": [(name, [column.cell(runs) for column in COLUMNS]) for name, runs in methods],
        }
        for noise, methods in rows_of_noise(table)
    ]


def _costs(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "method": str(method),
            "runs": str(len(runs)),
            "gradients": spread(runs["gradients"], 0),
            "seconds": spread(runs["seconds"], 1),
        }
        for method, runs in table.groupby("method", sort=False)
    ]


def _selection_cost(root: Path) -> str:
    trials = [store.read_history(path) for path in sorted((root / "selection").rglob("*.h5"))]
    if not trials:
        return "No hyper-parameter was chosen by trials."
    gradients = sum(float(trial["gradients"].iloc[-1]) for trial in trials)
    seconds = sum(float(trial["seconds"].iloc[-1]) for trial in trials)
    return (
        f"Choosing hyper-parameters took {len(trials)} more trainings, {gradients:,.0f} batch gradients and "
        f"{seconds:,.0f} s of training."
    )


def _machines(root: Path) -> list[str]:
    found = []
    for path in store.run_files(root):
        stored = store.read_config(path)
        versions = ", ".join(f"{name} {version}" for name, version in sorted(stored.versions.items()))
        found.append(f"{stored.device}, {stored.threads} threads, {versions}")
    return sorted(set(found))


def _failures(root: Path, table: pd.DataFrame, state: store.Unfinished) -> list[str]:
    """Runs that diverged, failed, or have not been run, each with the known reason."""
    diverged = table[table["diverged"].astype(bool)]
    texts = [
        f"diverged after {run.epochs} epochs: {run.method}, {run.noise_kind} {percent(run.noise_rate)}, seed {run.seed}"
        for run in diverged.itertuples()
    ]
    for run, error in state.failed:
        file = store.failure_path(Path(run.path))
        texts.append(f"failed: {file if (root / file).is_file() else run.path}: {error}")
    for path in sorted((root / "selection").rglob("*.failed")):
        # a run that has succeeded since may keep the file after a kill
        if not path.with_suffix(".h5").exists():
            texts.append(f"failed: {path.relative_to(root)}: {store.read_failure(path)}")
    texts += [f"broken, or of other settings: {run.title}" for run in state.unusable]
    return texts + [f"not run: {run.title}" for run in state.missing]
