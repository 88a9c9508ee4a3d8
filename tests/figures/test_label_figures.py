"""Figures of suspicious labels."""

import numpy as np
import pytest

import figures

ABOUT = {"about": "Made by hand."}


def scores(epochs=6, samples=40):
    generator = np.random.default_rng(0)
    is_wrong = np.arange(samples) % 4 == 0
    return generator.normal(size=(epochs, samples)) + 3 * is_wrong, is_wrong


def texts(figure):
    figure.canvas.draw()
    return " ".join(
        " ".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))).split()
    )


@pytest.mark.parametrize(("width", "rows"), [(3.3, 4), (6.9, 1)])
def test_panels_stand_beside_each_other_where_there_is_room(width, rows):
    values, is_wrong = scores()
    figure = figures.label_scores(values, is_wrong, score_name="loss (nat)", width=width, **ABOUT)
    assert figure.get_figwidth() == width
    assert figure.axes[0].get_gridspec().nrows == rows
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["", "after epoch 1", "after epoch 3", "after epoch 6"]
    assert "10 of 40 labels are wrong" in texts(figure)


def test_lines_are_medians_of_right_and_of_wrong_labels():
    values, is_wrong = scores()
    figure = figures.label_scores(values, is_wrong, score_name="loss", **ABOUT)
    right, wrong = figure.axes[0].get_lines()
    np.testing.assert_allclose(right.get_ydata(), np.median(values[:, ~is_wrong], 1))
    np.testing.assert_allclose(wrong.get_ydata(), np.median(values[:, is_wrong], 1))


@pytest.mark.parametrize("case", ["one epoch", "no wrong label", "NaN", "equal scores"])
def test_scores_that_say_little_are_drawn_too(case):
    values, is_wrong = scores()
    if case == "one epoch":
        values = values[:1]
    elif case == "no wrong label":
        is_wrong = np.zeros_like(is_wrong)
    elif case == "NaN":
        values[2:] = np.nan
    else:
        values[:] = 1
    figures.label_scores(values, is_wrong, score_name="loss", **ABOUT).canvas.draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epochs": [7]}, r"^epochs: must lie in 1\.\.6, got 7"), ({}, "^scores: must be")],
)
def test_scores_that_do_not_fit_are_refused(options, message):
    values, is_wrong = scores()
    with pytest.raises(ValueError, match=message):
        figures.label_scores(
            values if options else values[0], is_wrong, score_name="loss", **options, **ABOUT
        )


@pytest.mark.parametrize(
    ("shape", "width"),
    [((5, 8, 8), 3.3), ((5, 1, 8, 8), 6.9), ((5, 3, 8, 8), 3.3), ((5, 8, 8, 3), 6.9), ((5, 8, 8, 1), 3.3)],
)
def test_a_contact_sheet_shows_each_image_with_its_labels(shape, width):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    figure = figures.contact_sheet(
        images,
        ["cat"] * 5,
        ["a very long name indeed"] * 5,
        ids=range(5),
        is_wrong=[True] * 3 + [False] * 2,
        width=width,
        **ABOUT,
    )
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 5
    assert shown[3].get_title() == "cat\n→ a very lo…\n#3"
    colors = {spine.get_edgecolor() for ax in shown[:3] for spine in ax.spines.values()}
    others = {spine.get_edgecolor() for ax in shown[3:] for spine in ax.spines.values()}
    assert len(colors) == len(others) == 1
    assert colors != others
    assert "Frame" in texts(figure)


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (np.zeros((0, 8, 8)), [], "^images"),
        (np.zeros((2, 5, 8, 8)), ["a", "b"], "^images"),
        (np.zeros((2, 8, 8)), ["a"], "^given: 1 for 2 images"),
    ],
)
def test_images_that_cannot_be_drawn_are_refused(images, names, message):
    with pytest.raises(ValueError, match=message):
        figures.contact_sheet(images, names, names, **ABOUT)
