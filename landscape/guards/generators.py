"""Generators of random numbers that a computation may draw from: of torch, NumPy and Python, global or its own."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.data.random_state import borrowed_generators

KINDS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator)

WORDS = 624
"""Numbers of 32 bits in the state of a Mersenne twister, which Python and NumPy start with."""


@dataclass(frozen=True)
class Source:
    """A generator whose state can be read and set.

    Attributes:
        read: the state.
        restore: sets a state that was read.
        seed: sets a state by a number.
        repeat: lets the next `WORDS` numbers be one share, between 0 and 1, of the largest; None if it cannot.
    """

    read: Callable[[], Any]
    restore: Callable[[Any], object]
    seed: Callable[[int], object]
    repeat: Callable[[float], object] | None = None


def key_of(state: Any) -> bytes:
    """The state of a generator as bytes, which are equal for equal states."""
    return state.numpy().tobytes() if isinstance(state, Tensor) else pickle.dumps(state)


def global_generators(device: torch.device) -> list[Any]:
    """The generators that draw where none is named: Python's, NumPy's, and torch's of the CPU and of a device."""
    return [*shared_generators(), torch.default_generator, default_generator(device)]


def shared_generators() -> list[Any]:
    """The global generators of Python and NumPy, from which all threads draw."""
    numpys: Any = np.random.get_state
    of_python: Any = random.getstate
    return [of_python.__self__, numpys.__self__]


def has_one_thread() -> bool:
    """Whether no other thread of Python runs, so that draws from shared generators are this thread's."""
    return threading.active_count() == 1


def default_generator(device: torch.device) -> torch.Generator:
    """The generator from which torch draws on a device."""
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    found: torch.Generator = torch.cuda.default_generators[index]
    return found


def source_of(generator: Any) -> Source:
    """A generator of one of `KINDS` as a source."""
    if isinstance(generator, torch.Generator):
        return Source(generator.get_state, generator.set_state, generator.manual_seed)
    if isinstance(generator, random.Random):
        read, restore = generator.getstate, generator.setstate
        return Source(read, restore, generator.seed, lambda share: restore((3, (*_words(share), 0), None)))
    if isinstance(generator, np.random.RandomState):
        numpys: Any = generator.set_state
        return Source(
            generator.get_state,
            numpys,
            generator.seed,
            lambda share: numpys(("MT19937", _words(share), 0)),
        )
    bits = generator.bit_generator

    def put(state: Any) -> None:
        bits.state = state

    return Source(lambda: bits.state, put, lambda seed: put(type(bits)(seed).state))


def generators_of(owners: Iterable[object]) -> list[Any]:
    """The generators that modules and functions hold.

    These are attributes, names that a function takes from around it, and global names of a function or of a module's
    `forward`.
    """
    return [held for owner in owners for held in _held_by(owner) if _is_generator(held)]


@contextmanager
def borrowed_for_checks(device: torch.device) -> Iterator[None]:
    """`borrowed_generators`, and at the end those of Python and NumPy have their state back too.

    They do not get it back if other threads run, which may have drawn from them.
    """
    with borrowed_generators(device):
        is_alone = has_one_thread()
        sources = list(map(source_of, shared_generators()))
        starts = [source.read() for source in sources]
        try:
            yield
        finally:
            if is_alone and has_one_thread():
                for source, start in zip(sources, starts, strict=True):
                    source.restore(start)


def _is_generator(held: object) -> bool:
    # isinstance would ask objects that load themselves late for their class
    kind = type(held)
    return issubclass(kind, KINDS) and not issubclass(kind, random.SystemRandom)


def _held_by(owner: Any) -> Iterator[object]:
    function = type(owner).forward if isinstance(owner, nn.Module) else getattr(owner, "func", owner)
    for holder in (owner, getattr(function, "__self__", None)):
        yield from list(getattr(holder, "__dict__", {}).values())
    function = getattr(function, "__func__", function)
    # other threads may add names meanwhile
    yield from list(getattr(function, "__globals__", {}).values())
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            # a name without a value yet
            continue


def _words(share: float) -> tuple[int, ...]:
    """The state of a Mersenne twister whose next `WORDS` numbers are all this share of 2^32."""
    word = int(share * 2**32)
    # the twister shifts and masks a number four times; each step is undone, the last one first
    word ^= word >> 18
    word ^= (word << 15) & 0xEFC60000
    found = word
    for _ in range(4):
        found = word ^ ((found << 7) & 0x9D2C5680)
    word = found
    for _ in range(2):
        found = word ^ (found >> 11)
    return (found,) * WORDS
