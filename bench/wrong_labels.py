"""How well each criterion finds wrong labels: the table of docs/wrong-labels.md.

    python bench/wrong_labels.py --data-dir .data --out docs/tables/wrong-labels.csv
    python bench/wrong_labels.py --markdown
    python bench/wrong_labels.py --only cifar10n --data-dir data/cifar10-jpeg.npz --human labels.npz --out more.csv

Each line is a training: a data set, a kind of noise, a seed. Lines that a file holds already are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import ncsam
from landscape import Objective, sample_curvature

KEYS = ["dataset", "noise_kind", "seed"]
SEEDS = range(3)
KINDS = ("symmetric", "pair", "part-dependent")
HUMAN = "human, worst"
RATE = 0.2
CURVATURE = "input-curvature"


@dataclass(frozen=True)
class Setting:
    """How networks are trained on one data set.

    Attributes:
        curved_epochs: at whose ends the curvature in the input is measured; the mean counts.
    """

    name: str
    samples: int | None
    model: str
    options: dict[str, list[int]]
    epochs: int
    batch_size: int
    curved_epochs: tuple[int, ...]
    folds: int = 3


SETTINGS = {
    "digits": Setting("digits", None, "mlp", {"hidden": [64]}, 20, 64, (10, 20)),
    "fashion-mnist": Setting("fashion-mnist", 2000, "mlp", {"hidden": [64]}, 20, 64, (10, 20)),
    "cifar10n": Setting("npz", 3000, "cnn", {"channels": [16, 32]}, 10, 64, (10,)),
}


def build(setting: Setting, data: ncsam.Dataset, seed: int) -> tuple[ncsam.Plain, torch.optim.Optimizer]:
    model = ncsam.build_model(setting.model, data.input_shape, data.num_classes, seed=seed, **setting.options)
    method = ncsam.Plain(model, nn.CrossEntropyLoss())
    return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)


def detection(setting: Setting, data: ncsam.Dataset, labels: ncsam.NoisyLabels, seed: int) -> ncsam.Detection:
    """All criteria, of one training and of the trainings of the folds."""
    method, optimizer = build(setting, data, seed)
    curvatures = []

    def measure(epoch: int, *_: object) -> None:
        if epoch in setting.curved_epochs:
            objective = Objective(method.model, nn.CrossEntropyLoss(), (data.train.inputs, labels.observed))
            found = sample_curvature(objective, measures=["input_curvature"], probes=4, seed=epoch)
            assert found.input_curvature is not None
            curvatures.append(torch.from_numpy(found.input_curvature))

    history = ncsam.fit(
        method,
        optimizer,
        data.train,
        labels,
        data.test,
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        seed=seed,
        record_samples=True,
        on_epoch=measure,
    )
    chances = ncsam.cross_validated_probabilities(
        data.train,
        labels,
        lambda fold: build(setting, data, 100 * seed + fold),
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        seed=seed,
        folds=setting.folds,
    )
    return ncsam.detect(
        history, labels, probabilities=chances, measures={CURVATURE: torch.stack(curvatures).mean(0)}
    )


def rows_of(detection: ncsam.Detection, labels: ncsam.NoisyLabels) -> Iterator[dict[str, object]]:
    for found in detection.quality(labels.is_wrong):
        row: dict[str, object] = {
            "criterion": found.criterion,
            "samples": found.samples,
            "wrong": found.wrong,
            "unscored": found.unscored,
        }
        for name in ("auroc", "average_precision", "precision_at_rate"):
            interval = getattr(found, name)
            row |= {
                name: round(interval.value, 4),
                f"{name}_low": round(interval.low, 4),
                f"{name}_high": round(interval.high, 4),
            }
        yield row


def cases(datasets: list[str]) -> Iterator[tuple[str, str, int]]:
    for kind in (*KINDS, HUMAN):
        for dataset in datasets:
            if (dataset == "cifar10n") == (kind == HUMAN):
                yield from ((dataset, kind, seed) for seed in SEEDS)


def labels_of(kind: str, data: ncsam.Dataset, seed: int, human: Path | None) -> ncsam.NoisyLabels:
    clean = data.train.targets
    if kind == HUMAN:
        assert human is not None, "--human: the file of CIFAR-10N's labels"
        return ncsam.human_labels(clean, ncsam.read_human_labels(human, "worst")[data.train_indices])
    inputs = {"inputs": data.train.inputs} if kind == "part-dependent" else {}
    return ncsam.corrupt_labels(clean, kind=kind, rate=RATE, seed=seed, **inputs)


def markdown(table: pd.DataFrame, column: str) -> str:
    """The means over the seeds, a line for each data set and kind of noise."""
    criteria = list(dict.fromkeys(table["criterion"]))
    lines = [
        "| labels | " + " | ".join(f"`{name}`" for name in criteria) + " |",
        "|---" * (1 + len(criteria)) + "|",
    ]
    for (dataset, kind), rows in table.groupby(["dataset", "noise_kind"], sort=False):
        means = rows.groupby("criterion")[column].mean()
        lines.append(f"| {dataset}: {kind} | " + " | ".join(f"{means[name]:.3f}" for name in criteria) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/tables/wrong-labels.csv"))
    parser.add_argument("--data-dir", type=Path, help="of Fashion-MNIST, or the .npz file of CIFAR-10")
    parser.add_argument("--human", type=Path, help="CIFAR-10N's labels")
    parser.add_argument("--most", type=int, default=1000, help="end after so many trainings")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=["digits", "fashion-mnist"])
    parser.add_argument("--markdown", action="store_true", help="print the tables of the page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame(columns=KEYS)
    if arguments.markdown:
        for column in ("auroc", "precision_at_rate"):
            print(markdown(table, column), end="\n\n")
        return
    for dataset, kind, seed in cases(arguments.only):
        if ((table[KEYS] == [dataset, kind, seed]).all(axis=1)).any():
            continue
        if arguments.most == 0:
            break
        arguments.most -= 1
        setting = SETTINGS[dataset]
        folder = None if dataset == "digits" else arguments.data_dir
        data = ncsam.load_dataset(
            setting.name, folder, train_samples=setting.samples, test_samples=300, seed=seed
        )
        labels = labels_of(kind, data, seed, arguments.human)
        found = pd.DataFrame(rows_of(detection(setting, data, labels, seed), labels))
        found.insert(0, "seed", seed)
        found.insert(0, "noise_rate", round(labels.realised_rate, 4))
        found.insert(0, "noise_kind", kind)
        found.insert(0, "dataset", dataset)
        table = pd.concat([table, found], ignore_index=True) if len(table) else found
        table.to_csv(arguments.out, index=False)
        print(found[[*KEYS, "criterion", "auroc", "precision_at_rate"]].to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
