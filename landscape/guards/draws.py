"""By how much a result depends on the random numbers that its computation draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.guards.generators import (
    Source,
    default_generator,
    generators_of,
    global_generators,
    has_one_thread,
    key_of,
    shared_generators,
    source_of,
)
from landscape.guards.repeated_runs import share_apart
from landscape.model.uncompiled import Uncompiled

FIRST_SEED = 3_141_592_653
"""The first of the other seeds. A seed that a user may have set would draw the numbers of the first run again."""

RUNS = 32
"""Runs with other seeds, of a computation that draws."""

REPEATS = 4
"""Runs without other seeds, of a computation that may draw where other threads may draw too."""

MARGIN = 2.0**-16
"""Distance of forced uniform numbers from the ends of their range, as a share of it."""

SHARES = (MARGIN, 1 - MARGIN)
"""What uniform numbers are forced to be, as shares of their range."""


def share_by_draws(run: Callable[[], Any], device: torch.device, owners: Iterable[object]) -> float:
    """The largest share by which the results of a computation differ with the random numbers that it draws.

    It is 0 for a computation that draws none, and infinite where it fails with some.

    A computation that draws is run again, twice with forced numbers and `RUNS` times with other seeds. Forced are the
    uniform numbers, all small or all large, and torch's decisions by a probability, all for or all against. So a
    layer that is left out once in a hundred passes is noticed. Numbers that are the same for all seeds, because the
    computation seeds by itself, are not forced. Nor are torch's, where the computation fails while its draws are noted.

    All generators get their state back. Generators of Python and NumPy are noticed if they are global, or held by the
    owners. While other threads of Python run, the global ones of Python and NumPy may be theirs, and are neither seeded
    nor set back. A computation that moves only these is repeated as it is, `REPEATS` times at most.

    Args:
        run: the computation. Its results are tensors in any tree.
        device: on which it draws, beside the CPU.
        owners: modules and functions that may hold generators.
    """
    is_alone = has_one_thread()
    generators = {id(each): each for each in (*global_generators(device), *generators_of(owners))}
    sources = {place: source_of(generator) for place, generator in generators.items()}
    starts = {place: source.read() for place, source in sources.items()}
    shared: dict[int, Source] = {}
    noted = _Draws()
    try:
        once, is_noted = _first_run(run, noted)
        moved = {place for place, source in sources.items() if key_of(source.read()) != key_of(starts[place])}
        if not noted.states and not moved:
            return 0.0
        if not (is_alone and has_one_thread()):
            shared = {id(each): sources.pop(id(each)) for each in shared_generators()}
        if not noted.states and moved <= shared.keys():
            return _share_of_repeats(run, once, [shared[place] for place in moved])
        for place, (generator, start) in noted.generators.items():
            sources.setdefault(place, source_of(generator))
            starts.setdefault(place, start)
        others = _with_other_draws(run, list(sources.values()), noted.states, is_noted)
        # no end at the first difference, because ranks of one model wait for each other in each pass
        return max(share_apart(other, once) for other in others)
    finally:
        if not (is_alone and has_one_thread()):
            shared = {id(each): source_of(each) for each in shared_generators()}
        for place in sources.keys() - shared.keys():
            sources[place].restore(starts[place])


def _first_run(run: Callable[[], Any], noted: _Draws) -> tuple[Any, bool]:
    """The results of a run, and whether torch's draws could be noted in it."""
    try:
        with noted:
            return run(), True
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # some operations take no such context; another failure occurs again
        return run(), False


def _share_of_repeats(run: Callable[[], Any], once: Any, moved: list[Source]) -> float:
    """The largest share by which results differ between runs, until a run moves none of these generators."""
    shares = []
    for _ in range(REPEATS):
        before = [key_of(source.read()) for source in moved]
        try:
            again = run()
        except torch.OutOfMemoryError:
            raise
        except Exception:
            again = None
        shares.append(share_apart(again, once))
        if before == [key_of(source.read()) for source in moved]:
            # another thread drew before
            break
    return max(shares)


def _with_other_draws(
    run: Callable[[], Any], sources: list[Source], states: set[bytes], is_noted: bool
) -> Iterator[Any]:
    for number in range(len(SHARES) + RUNS):
        share = SHARES[number] if number < len(SHARES) else None
        for source in sources:
            source.seed(FIRST_SEED + number)
            if share is not None and source.repeat:
                source.repeat(share)
        try:
            with _Draws(share, states) if is_noted else nullcontext():
                result = run()
        except torch.OutOfMemoryError:
            raise
        except Exception:
            # a computation that fails with some numbers depends on them
            result = None
        yield result


class _Draws(Uncompiled):
    """A context that notes what torch draws, and may force it.

    Attributes:
        states: of the generators before they drew, as bytes.
        generators: that drew, by their place in memory, with their state before.
    """

    def __init__(self, share: float | None = None, seeded: Iterable[bytes] = ()) -> None:
        """A context.

        Args:
            share: what uniform numbers are forced to be, as a share of their range; None: nothing is forced.
            seeded: states from which nothing is forced, because the computation set them.
        """
        super().__init__()
        self.states: set[bytes] = set()
        self.generators: dict[int, tuple[torch.Generator, Tensor]] = {}
        self._share, self._seeded = share, frozenset(seeded)

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operation."""
        options = options or {}
        if torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()):
            return function(*arguments, **options)
        generator = options.get("generator") or _default_of((arguments, options))
        before = generator.get_state()
        result = function(*arguments, **options)
        # attention without dropout could draw, and does not
        if not torch.equal(generator.get_state(), before):
            self.states.add(key_of(before))
            self.generators.setdefault(id(generator), (generator, before))
            if self._share is not None and key_of(before) not in self._seeded:
                _force(function, arguments, options, result, self._share)
        return result


def _default_of(arguments: Any) -> torch.Generator:
    """The generator of an operation on tensors, or of one that makes a tensor on a device."""
    leaves = tree_leaves(arguments)
    devices = [leaf.device for leaf in leaves if isinstance(leaf, Tensor)]
    devices += [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    return default_generator(devices[0] if devices else torch.device("cpu"))


def _force(
    function: Any, arguments: tuple[Any, ...], options: dict[str, Any], result: Any, share: float
) -> None:
    """Replaces drawn numbers in place, where they are uniform or decisions by a probability."""
    given = {
        each.name: arguments[place] if place < len(arguments) else options.get(each.name, each.default_value)
        for place, each in enumerate(function._schema.arguments)
    }
    name, is_large = function.overloadpacket.__name__, share > 0.5
    if name in ("rand", "rand_like", "uniform_"):
        low, high = given.get("from", 0.0), given.get("to", 1.0)
        # half precision has no number so near to 1
        margin = max(MARGIN, torch.finfo(result.dtype).eps)
        result.fill_(low + (1 - margin if is_large else margin) * (high - low))
    elif name in ("bernoulli", "bernoulli_"):
        probability = torch.as_tensor(given.get("p", given["self"]), device=result.device)
        # what is certain is no draw
        result.copy_(probability > 0 if is_large else probability >= 1)
    elif name == "native_dropout" and 0 < given["p"] < 1:
        dropped, kept = result
        kept.fill_(is_large)
        dropped.copy_(given["input"] / (1 - given["p"]) * is_large)
