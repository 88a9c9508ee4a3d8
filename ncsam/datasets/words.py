"""Words of several languages, for networks that read letters: which language is a word?"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ncsam.datasets.split import Dataset, Split

LANGUAGES = ("de", "en", "es", "eu", "fr", "it", "lv", "nl", "pt")
"""The languages of pyspellchecker in Latin letters; the place of each is its class."""
WORDS = 2500
"""Words of each language: the most frequent words that none of the other languages has."""
TEST_WORDS = 500
"""Words of each language that are test samples. They are drawn at random."""
LENGTH = 16
"""Bytes of a word; a shorter one is padded with 0."""
SHORTEST = 3
"""Letters of the shortest words; shorter words belong to several languages."""
MAX_BYTES = 64 * 2**20
"""Size up to which a list of words is unpacked. The largest list has 8 MB."""


def word_languages(_: Path | None = None) -> Dataset:
    """18,000 + 4,500 words of nine languages, from the word lists of pyspellchecker.

    An input is int64 (16,): the bytes of a word in UTF-8, and 0 where the word has ended. Words that several of the
    languages have are left out, so that each true label is the only one. The split follows from a fixed seed. The lists
    come with pyspellchecker under the MIT license; they were counted in OpenSubtitles.

    Raises:
        FileNotFoundError: pyspellchecker is missing.
        ValueError: a list that is not what it should be.
    """
    found = find_spec("spellchecker")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("dataset 'word-languages' needs pyspellchecker: pip install 'ncsam[data]'")
    folder = Path(found.submodule_search_locations[0]) / "resources"
    lists = [_read_counts(folder / f"{language}.json.gz") for language in LANGUAGES]
    train: list[tuple[Tensor, Tensor]] = []
    test: list[tuple[Tensor, Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    for label, counts in enumerate(lists):
        others = [other for other in lists if other is not counts]
        words = (
            word for word in _frequent(counts) if _fits(word) and not any(word in other for other in others)
        )
        chosen = list(islice(words, WORDS))
        if len(chosen) < WORDS:
            raise ValueError(
                f"{folder}: only {len(chosen)} words of {LANGUAGES[label]!r}; {WORDS} are needed"
            )
        tokens = torch.stack([_tokens(word) for word in chosen])
        order = torch.randperm(WORDS, generator=generator, device="cpu")
        labels = torch.full((WORDS,), label, device="cpu")
        for part, rows in ((test, order[:TEST_WORDS]), (train, order[TEST_WORDS:])):
            part.append((tokens[rows], labels[rows]))
    return Dataset(
        name="word-languages",
        train=_joined(train),
        test=_joined(test),
        num_classes=len(LANGUAGES),
        train_indices=torch.arange((WORDS - TEST_WORDS) * len(LANGUAGES), device="cpu"),
    )


def _read_counts(path: Path) -> dict[str, int]:
    """The words of a list, and how often each was counted."""
    try:
        with gzip.open(path) as file:
            found = json.loads(file.read(MAX_BYTES))
        counts: dict[str, int] = dict(found)
        max(counts.values())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"dataset 'word-languages': {path} is missing; install pyspellchecker anew"
        ) from error
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"{path}: is no list of words with their counts ({error})") from error
    return counts


def _frequent(counts: dict[str, int]) -> Iterator[str]:
    """The words from the most frequent on, those of equal counts in the order of their letters."""
    enough = sorted(counts.values(), reverse=True)[: 8 * WORDS][-1]
    yield from sorted(
        (word for word, count in counts.items() if count >= enough), key=lambda word: (-counts[word], word)
    )


def _fits(word: str) -> bool:
    return len(word) >= SHORTEST and word.isalpha() and len(word.encode()) <= LENGTH


def _tokens(word: str) -> Tensor:
    return torch.tensor(list(word.encode().ljust(LENGTH, b"\0")), dtype=torch.int64, device="cpu")


def _joined(parts: list[tuple[Tensor, Tensor]]) -> Split:
    tokens, labels = zip(*parts, strict=True)
    return Split(torch.cat(tokens), torch.cat(labels))
