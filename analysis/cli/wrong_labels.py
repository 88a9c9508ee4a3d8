"""Which labels of one's own data are wrong: `ncsam detect DATA`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import figures
from analysis.printable import printable
from analysis.store import replace_file
from ncsam import (
    DATASETS,
    Dataset,
    Detection,
    NoisyLabels,
    Plain,
    TrainingDynamics,
    build_model,
    corrupt_labels,
    cross_validated_probabilities,
    detect,
    fit,
    human_labels,
    load_dataset,
    read_human_labels,
)
from ncsam.detection import Interval
from ncsam.options import nearest

SHOWN = 24
"""Images of the contact sheet."""


@dataclass(frozen=True)
class DetectionPlan:
    """What is asked for.

    Attributes:
        data: a packaged data set, or an .npz file of the form that `ncsam.datasets.npz` reads.
        labels, labels_name: a file of labels that annotators gave, and which of its labels.
        noise, rate: wrong labels that are planted, to see how well they are found.
        folds: of the cross-validation; 0 for none.
    """

    data: str
    data_dir: Path | None
    labels: Path | None
    labels_name: str | None
    noise: str | None
    rate: float | None
    model: str | None
    epochs: int
    batch_size: int
    learning_rate: float
    folds: int
    seed: int
    out: Path
    device: str


def detect_wrong_labels(plan: DetectionPlan, console: Console) -> None:
    """Trains on the labels, and writes a table of all samples, the most suspicious first, and pictures.

    Labels that the data set or a file of labels has beside the true ones are searched. Without them, the data set's own
    labels are searched, and nothing is known of the truth.

    Raises:
        FileNotFoundError, ValueError: naming the option.
    """
    _check(plan)
    data = _data(plan)
    labels, knows_truth = _labels(plan, data)
    found, dynamics = _search(plan, data, labels, console)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    found.write_csv(plan.out)
    if knows_truth:
        _print_quality(found, labels, console)
    else:
        _print_suspects(found, console)
    _say(console, f"table: {plan.out} ({len(found.ids):,} samples, by {', '.join(found.criteria)})")
    for picture in _pictures(plan, data, labels, found, dynamics, knows_truth):
        _say(console, f"picture: {picture}")


def _check(plan: DetectionPlan) -> None:
    for option, value, least in (
        ("epochs", plan.epochs, 1),
        ("batch-size", plan.batch_size, 1),
        ("folds", plan.folds, 0),
    ):
        if value < least:
            raise ValueError(f"--{option}: must be at least {least}, got {value}")
    if plan.folds == 1:
        raise ValueError("--folds: must be 0 for none, or at least 2, got 1")
    if not plan.learning_rate > 0:
        raise ValueError(f"--learning-rate: must be positive, got {plan.learning_rate}")
    if plan.noise is not None and plan.labels is not None:
        raise ValueError("--noise: plants wrong labels, --labels reads some; give one of them")
    if (plan.noise is None) != (plan.rate is None):
        raise ValueError("--noise, --rate: give both or neither")


def _data(plan: DetectionPlan) -> Dataset:
    if plan.data.endswith(".npz"):
        if not Path(plan.data).is_file():
            raise FileNotFoundError(f"data: {plan.data} does not exist")
        return load_dataset("npz", plan.data)
    if plan.data not in DATASETS:
        hint = nearest(plan.data, DATASETS)
        raise ValueError(
            f"data: {plan.data!r} is no data set and no .npz file" + (f"; {hint}" if hint else "")
        )
    return load_dataset(plan.data, plan.data_dir)


def _labels(plan: DetectionPlan, data: Dataset) -> tuple[NoisyLabels, bool]:
    """The labels to search, and whether the true ones are known."""
    own, classes = data.train.targets, data.num_classes
    if plan.noise is not None:
        return corrupt_labels(own, kind=plan.noise, rate=plan.rate, seed=plan.seed), True
    if plan.labels is not None:
        read = read_human_labels(plan.labels, plan.labels_name)
        if len(read) <= int(data.train_indices.max()):
            raise ValueError(f"--labels: {plan.labels} has {len(read)} labels for {len(own)} samples")
        return human_labels(own, read[data.train_indices], classes), True
    if data.observed is not None:
        return human_labels(own, data.observed, classes), True
    return human_labels(own, own, classes), False


def _search(
    plan: DetectionPlan, data: Dataset, labels: NoisyLabels, console: Console
) -> tuple[Detection, TrainingDynamics]:
    def build(seed: int) -> tuple[Plain, torch.optim.Optimizer]:
        name = plan.model or ("cnn" if len(data.input_shape) == 3 else "mlp")
        model = build_model(name, data.input_shape, data.num_classes, seed=seed).to(plan.device)
        method = Plain(model, nn.CrossEntropyLoss())
        return method, torch.optim.SGD(method.parameters(), lr=plan.learning_rate, momentum=0.9)

    train = data.train.to(plan.device)
    method, optimizer = build(plan.seed)
    with console.status("training") as status:
        history = fit(
            method,
            optimizer,
            train,
            labels,
            data.test.to(plan.device),
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            seed=plan.seed,
            record_samples=True,
            on_epoch=lambda epoch, *_: status.update(f"training: epoch {epoch} of {plan.epochs}"),
        )
        if history.diverged:
            raise ValueError("--learning-rate: the training diverged; take a smaller one")
        chances: Tensor | None = None
        if plan.folds:
            chances = cross_validated_probabilities(
                train,
                labels.to(plan.device),
                lambda fold: build(plan.seed + 1 + fold),
                epochs=plan.epochs,
                batch_size=plan.batch_size,
                seed=plan.seed,
                folds=plan.folds,
                on_fold=lambda fold: status.update(f"cross-validation: {fold} of {plan.folds} folds"),
            )
    assert history.dynamics is not None
    found = detect(history, labels, probabilities=chances, ids=data.train_indices)
    return found, history.dynamics


def _print_quality(found: Detection, labels: NoisyLabels, console: Console) -> None:
    wrong = int(labels.is_wrong.sum())
    _say(console, f"{wrong:,} of {len(found.ids):,} labels are wrong ({labels.realised_rate:.1%})")
    if min(wrong, len(found.ids) - wrong) < 2:
        return
    _say(console, "how well each criterion finds them, with 95% intervals:")
    table = Table()
    for column in ("criterion", "AUROC", "average precision", "precision at the noise rate"):
        table.add_column(column)
    for each in found.quality(labels.is_wrong, resamples=200):
        numbers = (each.auroc, each.average_precision, each.precision_at_rate)
        table.add_row(each.criterion, *(_with_interval(number) for number in numbers))
    console.print(table)


def _with_interval(number: Interval) -> str:
    return f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"


def _print_suspects(found: Detection, console: Console) -> None:
    _say(console, f"the most suspicious labels by {found.criteria[0]}:")
    table = Table()
    for column in ("id", "label", "proposed"):
        table.add_column(column)
    for sample in found.rankings[0].order[:10].tolist():
        table.add_row(str(found.ids[sample]), str(found.labels[sample]), str(found.proposed[sample]))
    console.print(table)


def _pictures(
    plan: DetectionPlan,
    data: Dataset,
    labels: NoisyLabels,
    found: Detection,
    dynamics: TrainingDynamics,
    knows_truth: bool,
) -> list[Path]:
    """Draws the most suspicious images, and the losses of right and wrong labels where the truth is known."""
    drawn = {}
    about, is_wrong = f"{data.name}, {len(found.ids):,} samples.", labels.is_wrong.cpu().numpy()
    if knows_truth:
        drawn["losses"] = figures.label_scores(
            dynamics.losses.numpy(), is_wrong, score_name="loss (nat)", about=about
        )
    shape = data.input_shape
    if len(shape) == 3 and shape[0] in (1, 3):
        first = found.rankings[0].order[:SHOWN]
        drawn["suspects"] = figures.contact_sheet(
            data.train.pixels[torch.from_numpy(first)].numpy(),
            found.labels[first].tolist(),
            found.proposed[first].tolist(),
            ids=found.ids[first].tolist(),
            is_wrong=is_wrong[first] if knows_truth else None,
            about=f"{about} The most suspicious by {found.criteria[0]}.",
        )
    paths = []
    for name, figure in drawn.items():
        path = plan.out.with_name(f"{plan.out.stem}.{name}.png")
        replace_file(path, partial(_write, figure))
        paths.append(path)
    return paths


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=150)


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
