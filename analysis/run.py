"""One run, from its configuration to its file: load, corrupt, train, measure, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from analysis import store
from analysis.measure import measure, subset
from analysis.study import Run
from ncsam import CheckpointError, Split, build_method, build_model, corrupt_labels, fit, load_dataset

Report = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class Choice:
    """Hyper-parameters for a final run, and what they were chosen from.

    Attributes:
        hyperparameters: those chosen.
        candidates: all that were compared.
        scores: accuracy of each on validation samples with observed labels, mean over the selection's seeds;
            NaN for one that diverged; empty if there was nothing to choose.
        standard_errors: binomial, of the scores.
    """

    hyperparameters: dict[str, Any]
    candidates: list[dict[str, Any]]
    scores: list[float]
    standard_errors: list[float]


def derived_seed(config: dict[str, Any], purpose: str) -> int:
    """The seed of one kind of draw in a run.

    It depends on data set, noise and seed but not on the method, so that runs of different methods are paired:
    same wrong labels, same initial weights, same order of samples.
    """
    noise = config["noise"]
    key = f"{config['dataset']}|{noise['kind']}|{noise['rate']!r}|{config['seed']}|{purpose}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])


def execute(
    run: Run, choice: Choice, root: Path, *, data_dir: Path | None, device: str, report: Report
) -> None:
    """Trains and measures one run and writes its file, resuming from its checkpoint if there is one.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset` and the store do.
    """
    config = run.config
    training = config["training"]
    dataset = load_dataset(config["dataset"], data_dir)
    labels = corrupt_labels(
        dataset.train.targets,
        kind=config["noise"]["kind"],
        rate=config["noise"]["rate"],
        seed=derived_seed(config, "labels"),
        num_classes=dataset.num_classes,
    )
    train, held_out = dataset.train, dataset.test
    if config["purpose"] == "selection":
        # test data take no part: candidates are judged on training samples held out, as they were labelled
        train, labels, held_out = _validation_split(
            train, labels, config["selection"]["validation_fraction"], derived_seed(config, "validation")
        )
    train, labels, held_out = train.to(device), labels.to(device), held_out.to(device)

    options = {key: value for key, value in config["model"].items() if key != "name"}
    model = build_model(
        config["model"]["name"],
        dataset.input_shape,
        dataset.num_classes,
        seed=derived_seed(config, "weights"),
        **options,
    ).to(device)
    loss_fn = nn.CrossEntropyLoss()
    method = build_method(
        config["method"]["name"],
        model,
        loss_fn,
        seed=derived_seed(config, "method"),
        clean_targets=labels.clean,
        **choice.hyperparameters,
    )
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training["learning_rate"],
        momentum=training["momentum"],
        weight_decay=training["weight_decay"],
    )
    epochs = training["epochs"]
    path = root / run.path
    checkpoint = path.with_name(f"{path.stem}.{run.fingerprint[:12]}.ckpt")
    train_or_resume = partial(
        fit,
        method,
        optimizer,
        train,
        labels,
        held_out,
        epochs=epochs,
        batch_size=training["batch_size"],
        seed=derived_seed(config, "order"),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
        alignment_batches=training["alignment_batches"] if config["purpose"] == "final" else 0,
        checkpoint=checkpoint,
        fingerprint=run.fingerprint,
        on_epoch=lambda epoch: report("training", epoch, epochs),
    )
    try:
        history = train_or_resume()
    except CheckpointError:
        # such as one that a power failure left: at worst the run is trained from its start
        checkpoint.unlink()
        history = train_or_resume()
    measurements: dict[str, Any] = {}
    measured = {}
    if config["purpose"] == "final" and not history.diverged:
        report("measuring", epochs, epochs)
        settings = config["measure"]
        chosen = {
            name: subset(len(split), settings["samples"], derived_seed(config, f"measured {name} samples"))
            for name, split in (("train", train), ("test", held_out))
        }
        measured = chosen
        measurements = measure(
            model,
            loss_fn,
            train.take(chosen["train"]),
            labels.take(chosen["train"]),
            held_out.take(chosen["test"]),
            settings,
            seed=derived_seed(config, "measurement"),
            with_surfaces=config["noise"]["rate"] in settings["surface_rates"]
            and config["seed"] in settings["surface_seeds"],
        )
    store.write_run(path, run, choice, labels, history, model, measurements, measured, device=device)
    checkpoint.unlink(missing_ok=True)


def _validation_split(train: Split, labels: Any, fraction: float, seed: int) -> tuple[Split, Any, Split]:
    count = max(1, round(fraction * len(train)))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    kept, held = order[count:].sort().values, order[:count].sort().values
    held_out = Split(train.inputs[held], labels.observed[held])
    return train.take(kept), labels.take(kept), held_out
