"""The quantities of claim E9: tails of the weight matrices' spectra, and the norm of the matrices."""

from __future__ import annotations

from analysis.claims.quantities import DECADES, DECADES_MARGIN, NEW_INDEX, Quantity, log10

LARGE = f"weight matrices of at least 32 eigenvalues that are not 0, and {NEW_INDEX}"

OF_WEIGHTS = {
    "weight_tail_index": Quantity(
        "tail index of the weight matrices' spectra", ("weight_tail_index",), margin=0.1, needs=LARGE
    ),
    "weight_norm": Quantity(
        "norm of the weight matrices",
        ("weight_norm",),
        DECADES,
        of=log10,
        margin=DECADES_MARGIN,
        needs=LARGE,
    ),
}
