"""Whether tracing a product saves more than it costs: by counts, which are the same in each run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from landscape.fx.flops import counted_work

TRACING_FLOPS = {"cpu": 1e9, "cuda": 1e11}
"""Floating-point operations that take as long as tracing one operation of a forward pass: some 10 ms.

On a CPU it took 8 to 13 ms an operation for an MLP, a CNN, a ResNet-8, a ResNet-20 and a transformer.
"""

PRODUCT_COST = 7
"""A product by double backward takes about as long as this number of forward passes."""

SAVED = 1 / 4
"""The share of a direct product that a traced one saves at least: a third to three quarters where it was measured."""

SPENT_FLOPS = {"cpu": 2e11, "cuda": 2e13}
"""After products of so many floating-point operations more are expected, though none is announced."""

CHECKED = 2
"""The products of one chunk, about, that comparing a traced product with a direct one takes."""


@dataclass(frozen=True)
class Work:
    """What the direct product of one chunk takes.

    Attributes:
        flops: floating-point operations of a product, about.
        operations: calls of torch's operations in a forward pass. The time of tracing grows with them.
    """

    flops: float
    operations: int

    @classmethod
    def of(cls, run: Callable[[], object]) -> Work:
        """The work of a product, from a forward pass."""
        flops, operations = counted_work(run)
        return cls(PRODUCT_COST * flops, operations)


def pays(work: Work, announced: int, past: int, *, chunks: int, forms: int, device: str) -> bool:
    """Whether the announced products save more than tracing costs, or so many are past that more are expected.

    Args:
        work: of one chunk.
        announced: products that are announced and still to come.
        past: products so far, the present ones included.
        chunks: number of chunks.
        forms: number of different shapes of chunks, each of which is traced by itself.
        device: type of the device.
    """
    place = device if device in TRACING_FLOPS else "cpu"
    product = work.flops * chunks
    costs = forms * work.operations * TRACING_FLOPS[place] + CHECKED * work.flops
    # the last chunk may have another shape than the others
    return announced * SAVED * product >= costs or past * product >= SPENT_FLOPS[place] * max(1, forms - 1)
