"""Checks of the weights by which micro-batches and ranks are averaged, where these are a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ncsam.methods.agreement import Agreement
from ncsam.methods.batches import Batch
from ncsam.methods.loss_checks import check_that_halves_add_up, check_that_pieces_add_up
from ncsam.methods.rank_samples import check_beside_other_ranks, few_targets_of_others
from ncsam.methods.weighing import Piece


@dataclass(eq=False)
class GuessedWeights:
    """What the checks of a method's own loss have told so far.

    Attributes:
        adds_up: whether the pieces of a batch need no comparison any more.
        was_compared: whether the pieces of a batch, and their gradients, were compared with the whole.
        is_mean: whether the loss is the mean over halves of a rank's part.
        others: a few targets of each other rank; None: the ranks have not exchanged any yet.
    """

    adds_up: bool = False
    was_compared: bool = False
    is_mean: bool = False
    others: list[Batch] | None = None

    def exchange(self, targets: Batch | None, ranks: Agreement) -> None:
        """Exchanges a few targets with the other ranks, once."""
        if self.others is None:
            self.others = few_targets_of_others(targets, ranks)

    def check_part_of_rank(
        self, loss_fn: Callable[..., Any], outputs: Any, targets: Batch, loss: Tensor
    ) -> None:
        """Checks that the loss is a mean over this rank's samples, and over those of other ranks, until that is known.

        Raises:
            ValueError: it is none.
        """
        if self.is_mean:
            return
        self.is_mean = check_that_halves_add_up(loss_fn, outputs, targets, loss)
        if self.others and check_beside_other_ranks(loss_fn, outputs, targets, self.others):
            self.others = []

    def check_pieces(
        self, loss_fn: Callable[..., Any], outputs: list[Any], pieces: Sequence[Piece], losses: list[Tensor]
    ) -> None:
        """Checks that the loss of a batch is the sum over its pieces; the first time their gradients too.

        The guess is compared in each pass, by one more call of the loss on outputs that are there already: it is right
        for a batch in which all labels count alike, and wrong for the next one that has an ignored label or another
        class. With `count=`, or a loss of torch, nothing is guessed.

        Raises:
            ValueError: it is not.
        """
        shares = None if self.was_compared else [piece.share for piece in pieces]
        targets = [piece.targets for piece in pieces]
        check_that_pieces_add_up(loss_fn, outputs, targets, torch.stack(losses), shares)
        self.was_compared = True
