"""The forms of a training's history: a line, a table, pandas, a figure."""

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import METRICS, History, Plain, Split, fit, human_labels

NUMBERS = {
    "train_loss": [2.0, 0.5, 0.25],
    "test_loss": [2.1, 0.75, 0.7],
    "test_accuracy": [0.1, 0.8, 0.9],
    "train_clean_accuracy": [0.2, 0.7, 0.95],
    "memorized": [0.0, 0.1, 0.3],
}


@pytest.mark.parametrize(("reduction", "what"), [("mean", "mean"), ("sum", "sum over the samples of the")])
def test_the_losses_are_described_as_what_they_are(reduction, what):
    targets = torch.arange(6) % 3
    data, model = Split(torch.randn(6, 4), targets), nn.Linear(4, 3)
    method = Plain(model, nn.CrossEntropyLoss(reduction=reduction))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = fit(method, optimizer, data, human_labels(targets, targets), data, epochs=1, batch_size=6, seed=0)
    assert found.described["train_loss"][1].startswith(f"{what} training loss with observed labels")
    assert found.described["test_loss"][1] == f"{what} loss on held-out samples"


def history(*, epochs=3, diverged=False, **changed):
    missing = [np.nan] * 3
    numbers = {name: NUMBERS.get(name, missing) for name in METRICS} | changed
    metrics = {name: np.array(values[:epochs], dtype=float) for name, values in numbers.items()}
    return History(metrics, diverged, {**METRICS, "own<b>": ("s", "mine")}, None)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            history(),
            "History(epochs=3, train_loss=0.25, test_accuracy=0.9, memorized=0.3, diverged=False)",
        ),
        (
            history(memorized=[np.nan] * 3),
            "History(epochs=3, train_loss=0.25, test_accuracy=0.9, diverged=False)",
        ),
        (
            history(train_loss=[1, 1, np.inf], diverged=True),
            "History(epochs=3, test_accuracy=0.9, memorized=0.3, diverged=True)",
        ),
        (history(epochs=0), "History(epochs=0, diverged=False)"),
    ],
    ids=["whole", "no wrong labels", "diverged", "not begun"],
)
def test_a_line_has_the_last_numbers_that_there_are(made, line):
    assert repr(made) == line


def test_a_table_has_each_metric_that_has_a_number_with_its_meaning():
    table = history(**{"own<b>": [1.0, 2.0, 3.0]})._repr_html_()
    assert table.count("<tr>") == len(NUMBERS) + 1
    assert "own&lt;b&gt;" in table
    assert METRICS["memorized"][1] in table
    assert "learning_rate" not in table
    assert "<tr>" not in history(epochs=0)._repr_html_()


def test_a_frame_has_a_row_for_each_epoch_from_1():
    frame = history(diverged=True).to_frame()
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame["test_accuracy"].tolist() == NUMBERS["test_accuracy"]
    assert frame.attrs == {"diverged": True}


def test_a_figure_has_a_curve_for_each_metric_that_has_numbers():
    figure = history(memorized=[np.nan] * 3, test_loss=[1.0, np.inf, 0.5]).plot(about="Digits.", width=3.3)
    losses, shares = figure.axes
    assert losses.get_ylabel() == "mean loss (nat)"
    drawn = {line.get_label(): line.get_ydata().tolist() for ax in (losses, shares) for line in ax.lines}
    assert drawn.keys() == {
        "training loss",
        "loss on held-out data",
        "held-out accuracy",
        "accuracy on true labels",
    }
    assert drawn["held-out accuracy"] == NUMBERS["test_accuracy"]
    assert np.isnan(drawn["loss on held-out data"][1])
    assert "Digits." in figure._supxlabel.get_text()
    with pytest.raises(ValueError, match="^history: holds no epoch"):
        history(epochs=0).plot()
