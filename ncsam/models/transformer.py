"""A small transformer that classifies sequences of tokens, such as the letters of a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PADDING = 0
"""The token after a sequence's end."""


class Block(nn.Module):
    """Attention and a fully connected network, each added to its input, which is normalized before (pre-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, is_padding: Tensor) -> Tensor:
        """x (batch, length, width), is_padding bool (batch, length) -> (batch, length, width)."""
        parts = self.queries_keys_values(self.norms[0](x)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
        weights = scores.masked_fill(is_padding[:, None, None], -math.inf).softmax(3)
        x = x + self.output((weights @ values).transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.mlp(self.norms[1](x))
        return mixed


class Transformer(nn.Module):
    """Tokens, embedded with their positions, blocks, the mean over the positions that are no padding, a linear head."""

    def __init__(
        self, length: int, num_classes: int, width: int, depth: int, heads: int, tokens: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (batch, length) -> (batch, classes)."""
        is_padding = tokens == PADDING
        # a sequence of padding alone has no mean
        is_padding = is_padding & ~is_padding.all(1, keepdim=True)
        x = self.embedding(tokens) + self.positions
        for block in self.blocks:
            x = block(x, is_padding)
        kept = (~is_padding).to(x.dtype).unsqueeze(2)
        outputs: Tensor = self.head((self.norm(x) * kept).sum(1) / kept.sum(1))
        return outputs


def transformer(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    tokens: int = 256,
) -> nn.Module:
    """A pre-norm transformer on sequences of tokens; token 0 is padding.

    Args:
        input_shape: (length,).
        num_classes: number of outputs.
        width: of the embedding; the fully connected networks are four times as wide.
        depth: blocks.
        heads: of attention in each block; they divide the width.
        tokens: how many there are, padding among them; 256 for bytes.

    Raises:
        ValueError: an input that is no sequence, or heads that do not divide the width.
    """
    if len(input_shape) != 1:
        raise ValueError(
            f"name: 'transformer' takes sequences of tokens, not inputs of shape {tuple(input_shape)}"
        )
    if width % heads:
        raise ValueError(f"heads: {heads} do not divide the width {width}")
    return Transformer(input_shape[0], num_classes, width, depth, heads, tokens)
