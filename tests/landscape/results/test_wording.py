"""How numbers are written for people."""

import pytest

from landscape.results.wording import counted, listed, percents


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.0, 0.4], "0% 40%"),
        ([0.1764, 0.17644], "17.64% 17.644%"),
        ([0.4, 0.40000001], "40% 40.000001%"),
        ([1 / 3, 0.125], "33.33% 12.5%"),
        ([0.3, 0.1 + 0.2], "30% 30.000000000000004%"),
        ([0.4, 0.4], "40% 40%"),
        ([], ""),
    ],
)
def test_shares_that_differ_are_written_in_as_many_digits_as_tell_them_apart(shares, words):
    assert listed(shares) == words
    assert len(set(percents(shares).values())) == len(set(shares))


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (1, "pairs", "1 pair"),
        (2, "pairs", "2 pairs"),
        (0, "pairs", "0 pairs"),
        (1, "seeds in cells", "1 seed in cells"),
        (1, "slopes of seeds", "1 slope of seeds"),
        (1, "families", "1 family"),
        (1, "series", "1 series"),
    ],
)
def test_one_thing_is_named_in_the_singular(count, words, said):
    assert counted(count, words) == said
