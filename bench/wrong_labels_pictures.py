"""The pictures of docs/wrong-labels.md: Fashion-MNIST with 20% of the labels redrawn from the other classes.

python bench/wrong_labels_pictures.py --data-dir .data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import figures
from ncsam import Plain, build_model, corrupt_labels, detect, fit, load_dataset

FOLDER = Path(__file__).resolve().parents[1] / "docs/static"
CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
ABOUT = "Fashion-MNIST, 1,500 samples, an MLP."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="of Fashion-MNIST")
    data = load_dataset("fashion-mnist", parser.parse_args().data_dir, train_samples=1500, test_samples=200)
    labels = corrupt_labels(data.train.targets, kind="symmetric", rate=0.2, seed=0)
    model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[128])
    method = Plain(model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    settings = {"epochs": 20, "batch_size": 64, "seed": 0, "record_samples": True}
    history = fit(method, optimizer, data.train, labels, data.test, **settings)
    assert history.dynamics is not None
    drawn = figures.label_scores(
        history.dynamics.margins, labels.is_wrong, score_name="margin (logits)", about=ABOUT
    )
    drawn.savefig(FOLDER / "margins.png", dpi=110)
    found = detect(history, labels)
    first = found["area-under-margin"].order[:18]
    sheet = figures.contact_sheet(
        data.train.pixels[first],
        [CLASSES[label] for label in found.labels[first]],
        [CLASSES[label] for label in found.proposed[first]],
        ids=found.ids[first],
        is_wrong=labels.is_wrong[first],
        about=f"{ABOUT} The most suspicious by area under the margin.",
    )
    sheet.savefig(FOLDER / "suspects.png", dpi=110)


if __name__ == "__main__":
    main()
