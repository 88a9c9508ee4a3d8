"""Lists with a part for each sample, such as the boxes of each image: a batch with one is not cut into rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils._pytree import tree_map

from landscape.data.batches import Batch, samples_in


class OfSamples(list[Any]):
    """A list with a part for each sample. Torch takes it for one piece, in which it finds no rows."""


def with_lists_of_samples_whole(batch: Batch) -> Batch:
    """The batch, where a list of one dict beside one sample is marked as one of samples, so that the batch stays whole.

    All tensors of one image with one box have one row, and the rows of the boxes are no samples even so. Batches of
    more images show it by their sizes.
    """
    if samples_in(batch) != 1:
        return batch
    return tree_map(
        lambda part: OfSamples(part) if _is_of_one_sample(part) else part, batch, is_leaf=_is_of_one_sample
    )


def _is_of_one_sample(part: Any) -> bool:
    return type(part) is list and len(part) == 1 and isinstance(part[0], Mapping)
