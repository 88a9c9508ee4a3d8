"""What is chosen by name, and the options of each choice."""

import pytest
import torch

from ncsam import METHODS, hyperparameters
from ncsam.options import Registry, nearest_of, options_of


def maker(data, *, share: float, width: int = 3, name: str = "a", on: bool = False, top: float | None = None):
    """Makes nothing."""


registry = Registry("thing", {"one": maker})


def test_options_are_the_keyword_only_arguments_with_their_types_and_defaults():
    found = registry.options("one")
    assert list(found) == ["share", "width", "name", "on", "top"]
    assert found["share"].required
    assert (found["width"].default, found["width"].kind) == (3, int)
    assert found["top"].kind is float


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"share": "0.1"}, "share: must be a number, got '0.1'"),
        ({"share": True}, "share: must be a number, got True"),
        ({"share": None}, "share: must be a number, got None"),
        ({"share": 10**400}, "share: must be a number, got 1000"),
        ({"share": 0.1, "width": 2.0}, "width: must be a whole number, got 2.0"),
        ({"share": 0.1, "name": 3}, "name: must be a word, got 3"),
        ({"share": 0.1, "on": 1}, "on: must be true or false, got 1"),
        ({"share": 0.1, "widht": 2}, "widht: 'one' has no such option; did you mean 'width'?"),
        ({"share": 0.1, "x": 2}, "x: 'one' has no such option; it takes share, width, name, on, top"),
        ({}, "share: thing 'one' needs it"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(given, says):
    with pytest.raises(ValueError, match="^" + says.replace("?", r"\?")):
        registry.check("one", given)


def test_an_unknown_choice_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="^thing: unknown name 'on'; known: one; did you mean 'one'"):
        registry.options("on")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("NCSAM", "ncsam"),
        ("asym", "asymmetric"),
        ("SYM", "symmetric"),
        ("symetric", "symmetric"),
        ("Symetric", "symmetric"),
        ("sym", "symmetric"),
        ("x", None),
        ("", None),
    ],
)
def test_a_word_is_known_by_its_letters_in_any_case_and_by_its_beginning(word, meant):
    known = ["symmetric-all", "symmetric", "asymmetric", "ncsam", "sam", "xavier"]
    assert nearest_of(word, known) == meant


@pytest.mark.parametrize(
    "given", [{"share": 1}, {"share": 0.5, "top": None}, {"share": torch.tensor(0.5).item(), "width": 4}]
)
def test_what_is_right_passes(given):
    registry.check("one", given)


def test_methods_by_clusters_share_the_options_of_ncsam_with_their_defaults():
    shared = {
        "rho",
        "flip_ratio",
        "strength",
        "compensation",
        "warmup",
        "warmup_with",
        "schedule",
        "direction",
    }
    own, ncsam = options_of(METHODS["cluster-ncsam"]), options_of(METHODS["ncsam"])
    assert {name: own[name] for name in shared} == {name: ncsam[name] for name in shared}
    assert set(hyperparameters("cluster-ncsam")) == shared | {"clusters", "project", "label_smoothing"}
