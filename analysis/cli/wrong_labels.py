"""Which labels of one's own data are wrong: `ncsam detect DATA`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import figures
from analysis.cli.png import write_png
from analysis.plan.data import planted_labels
from analysis.printable import say
from analysis.store import check_writable
from ncsam import (
    DATASETS,
    Dataset,
    Detection,
    NoisyLabels,
    Plain,
    TrainingDynamics,
    build_model,
    cross_validated_probabilities,
    detect,
    fit,
    human_labels,
    load_dataset,
    noise_options,
    predict,
    read_human_labels,
)
from ncsam.datasets.split import standardized
from ncsam.detection import DivergedError, Interval, training_fingerprint
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
    labels are searched, and nothing is known of the truth. Beside the table is a folder of checkpoints until all is
    done; the same command goes on with them after a kill.

    Raises:
        FileNotFoundError, ValueError: naming the option.
    """
    _check(plan)
    data = _data(plan)
    labels, knows_truth = _labels(plan, data)
    _check_before_training(plan, data, knows_truth)
    found, dynamics = _search(plan, data, labels, console)
    found.write_csv(plan.out)
    _warn_if_nothing_was_learned(dynamics, labels, console)
    if knows_truth:
        _print_quality(found, labels, console)
    else:
        _print_suspects(found, console)
    say(console, f"table: {plan.out} ({len(found.ids):,} samples, by {', '.join(found.criteria)})")
    for picture in _pictures(plan, data, labels, found, dynamics, knows_truth):
        say(console, f"picture: {picture}")
    _remove_checkpoints(plan)


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
    if plan.labels_name is not None and plan.labels is None:
        raise ValueError("--labels-name: names labels of a file; give the file by --labels")


def _data(plan: DetectionPlan) -> Dataset:
    if plan.data.endswith(".npz"):
        if not Path(plan.data).is_file():
            raise FileNotFoundError(f"data: {plan.data} does not exist")
        try:
            return standardized(load_dataset("npz", plan.data))
        except ValueError as error:
            raise ValueError(f"data: {error}") from error
    if plan.data not in DATASETS:
        hint = nearest(plan.data, DATASETS)
        raise ValueError(
            f"data: {plan.data!r} is no data set and no .npz file" + (f"; {hint}" if hint else "")
        )
    return load_dataset(plan.data, plan.data_dir)


def _labels(plan: DetectionPlan, data: Dataset) -> tuple[NoisyLabels, bool]:
    """The labels to search, and whether the true ones are known."""
    own, classes = data.train.targets, data.num_classes
    other = "--noise" if plan.noise is not None else "--labels" if plan.labels is not None else None
    if other is not None and data.observed is not None:
        raise ValueError(f"{other}: the data have observed labels of their own; leave the option out")
    if plan.noise is not None and plan.rate is not None:
        return _planted(data, plan.noise, plan.rate, plan.seed), True
    if plan.labels is not None:
        read = read_human_labels(plan.labels, plan.labels_name)
        if len(read) <= int(data.train_indices.max()):
            raise ValueError(f"--labels: {plan.labels} has {len(read)} labels for {len(own)} samples")
        return human_labels(own, read[data.train_indices], classes), True
    if data.observed is not None:
        return human_labels(own, data.observed, classes), True
    return human_labels(own, own, classes), False


def _planted(data: Dataset, kind: str, rate: float, seed: int) -> NoisyLabels:
    """Wrong labels that are planted; all options of their kind come from the data, or have their defaults."""
    try:
        needed = [name for name, option in noise_options(kind).items() if option.required]
        given = [name for name in needed if name != "inputs"]
        if given:
            raise ValueError(
                f"{kind!r} needs {given[0]!r}, which the data do not tell; take another kind, such as symmetric"
            )
        return planted_labels(data, kind, rate, seed, {})
    except (ValueError, TypeError) as error:
        text = str(error)
        if text.startswith("rate: "):
            raise ValueError(f"--{text}") from error
        raise ValueError(f"--noise: {text.removeprefix('kind: ')}") from error


def _check_before_training(plan: DetectionPlan, data: Dataset, knows_truth: bool) -> None:
    """Finds what would fail after hours of training.

    That is: data without a choice, a model that cannot be run on the data, missing packages, a table without a place.

    Raises:
        ValueError: naming the option.
    """
    if plan.folds > len(data.train):
        raise ValueError(f"--folds: must be at most the {len(data.train)} samples, got {plan.folds}")
    if data.num_classes < 2:
        raise ValueError("data: has one class, of which no label can be wrong")
    if plan.folds:
        _check_import("cleanlab", "--folds: the confident joint needs cleanlab")
    if knows_truth:
        _check_import("sklearn", "data: has true labels, and to compare with them needs scikit-learn")
    _check_that_it_runs(plan, data)
    _check_out(plan.out)


def _check_that_it_runs(plan: DetectionPlan, data: Dataset) -> None:
    method, _ = _builder(plan, data)(plan.seed)
    try:
        predict(method.model, data.train.take(torch.zeros(1, dtype=torch.int64)).to(plan.device))
    except RuntimeError as error:
        raise ValueError(
            f"--model: cannot be run on inputs of the shape {data.input_shape}: {error}; images are (channels, height, "
            "width)"
        ) from error


def _check_import(module: str, message: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{message}: pip install 'ncsam[detect]'") from error


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"--out: {out} is a folder; name a file in it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--out: cannot make the folder {out.parent}: {error.strerror}; name another"
        ) from error
    check_writable(out.parent)


def _search(
    plan: DetectionPlan, data: Dataset, labels: NoisyLabels, console: Console
) -> tuple[Detection, TrainingDynamics]:
    """Trains, and ranks. A search that was killed goes on where it was."""
    try:
        with console.status("training") as status:
            dynamics = _trained(plan, data, labels, status.update)
            chances = _out_of_sample(plan, data, labels, status.update) if plan.folds else None
    except DivergedError as error:
        # with a smaller rate these would be checkpoints of another training
        _remove_checkpoints(plan)
        raise ValueError("--learning-rate: the training diverged; take a smaller one") from error
    return detect(dynamics, labels, probabilities=chances, ids=data.train_indices), dynamics


def _trained(
    plan: DetectionPlan, data: Dataset, labels: NoisyLabels, tell: Callable[[str], None]
) -> TrainingDynamics:
    train = data.train.to(plan.device)
    method, optimizer = _builder(plan, data)(plan.seed)
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
        checkpoint=_checkpoints(plan) / "training.pt",
        fingerprint=training_fingerprint(
            method, optimizer, train, labels.observed, plan.epochs, plan.batch_size, plan.seed
        ),
        on_epoch=lambda epoch, *_: tell(f"training: epoch {epoch} of {plan.epochs}"),
    )
    if history.diverged:
        raise DivergedError
    assert history.dynamics is not None
    return history.dynamics


def _out_of_sample(
    plan: DetectionPlan, data: Dataset, labels: NoisyLabels, tell: Callable[[str], None]
) -> Tensor:
    build = _builder(plan, data)
    return cross_validated_probabilities(
        data.train.to(plan.device),
        labels.to(plan.device),
        lambda fold: build(plan.seed + 1 + fold),
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        seed=plan.seed,
        folds=plan.folds,
        checkpoints=_checkpoints(plan) / f"{plan.folds}-folds",
        on_fold=lambda fold: tell(f"cross-validation: {fold} of {plan.folds} folds"),
    )


def _builder(plan: DetectionPlan, data: Dataset) -> Callable[[int], tuple[Plain, torch.optim.Optimizer]]:
    """The seed of the weights -> a new network's method and its optimizer."""
    holds_tokens = not data.train.inputs.is_floating_point()
    usual = "transformer" if holds_tokens else "cnn" if len(data.input_shape) == 3 else "mlp"
    name = plan.model or usual

    def build(seed: int) -> tuple[Plain, torch.optim.Optimizer]:
        model = build_model(name, data.input_shape, data.num_classes, seed=seed).to(plan.device)
        method = Plain(model, nn.CrossEntropyLoss())
        return method, torch.optim.SGD(method.parameters(), lr=plan.learning_rate, momentum=0.9)

    return build


def _checkpoints(plan: DetectionPlan) -> Path:
    """The folder of the states of unfinished searches."""
    return plan.out.with_name(f"{plan.out.stem}.checkpoints")


def _remove_checkpoints(plan: DetectionPlan) -> None:
    folder = _checkpoints(plan)
    for path in (*folder.glob("training.pt*"), *folder.glob("*-folds/fold-*.pt*")):
        path.unlink()
    for path in (*folder.glob("*-folds"), folder):
        with suppress(OSError):  # something of another's is there
            path.rmdir()


def _warn_if_nothing_was_learned(dynamics: TrainingDynamics, labels: NoisyLabels, console: Console) -> None:
    """Says so if the network agrees with no more labels than the most frequent one would."""
    observed = labels.observed.cpu()
    agreement = float((dynamics.predictions[-1].long() == observed).double().mean())
    most = float(observed.bincount().max() / len(observed))
    # within the upper 5% of what a network could agree by chance
    if agreement <= most + 1.645 * (most * (1 - most) / len(observed)) ** 0.5:
        text = (
            f"warning: the network agrees with {agreement:.0%} of the labels, and the most frequent label with "
            f"{most:.0%}: it learned nothing, and the order says nothing; try more --epochs, another --learning-rate "
            "or another --model"
        )
        say(console, text, style="yellow")


def _print_quality(found: Detection, labels: NoisyLabels, console: Console) -> None:
    wrong = int(labels.is_wrong.sum())
    say(console, f"{wrong:,} of {len(found.ids):,} labels are wrong ({labels.realised_rate:.1%})")
    if min(wrong, len(found.ids) - wrong) < 2:
        return
    say(console, "how well each criterion finds them, with 95% intervals:")
    table = Table()
    for column in ("criterion", "AUROC", "average precision", "precision at the noise rate"):
        table.add_column(column)
    for each in found.quality(labels.is_wrong):
        numbers = (each.auroc, each.average_precision, each.precision_at_rate)
        table.add_row(each.criterion, *(_with_interval(number) for number in numbers))
    console.print(table)


def _with_interval(number: Interval) -> str:
    return f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"


def _print_suspects(found: Detection, console: Console) -> None:
    say(console, f"the most suspicious labels by {found.criteria[0]}:")
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
        write_png(path, figure)
        paths.append(path)
    return paths
