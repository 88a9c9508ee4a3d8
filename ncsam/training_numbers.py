"""The numbers among the settings of `fit`."""

from __future__ import annotations

from dataclasses import dataclass

from ncsam.options import check_at_least, check_positive
from ncsam.plain_numbers import with_plain_numbers


@dataclass(frozen=True)
class TrainingNumbers:
    """The numbers among the settings of `fit`; see there."""

    epochs: int
    batch_size: int
    seed: int
    alignment_batches: int
    mixup_alpha: float | None
    max_gradient_norm: float | None

    @classmethod
    @with_plain_numbers
    def checked(
        cls,
        epochs: int,
        batch_size: int,
        seed: int,
        alignment_batches: int,
        mixup_alpha: float | None,
        max_gradient_norm: float | None,
    ) -> TrainingNumbers:
        """The numbers, each of them checked.

        Raises:
            TypeError: a value is no number.
            ValueError: a number is out of range, or is a fraction where a whole number is needed.
        """
        for name, count, least in (
            ("epochs", epochs, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("alignment_batches", alignment_batches, 0),
        ):
            check_at_least(name, count, least)
        for name, number in (("mixup_alpha", mixup_alpha), ("max_gradient_norm", max_gradient_norm)):
            if number is not None:
                check_positive(name, number, "give None to leave it out")
        return cls(epochs, batch_size, seed, alignment_batches, mixup_alpha, max_gradient_norm)
