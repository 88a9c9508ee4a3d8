"""What a search for eigenvalues costs beside its products, where weights are many and products cheap.

    python bench/vector_work.py                  # some minute on one core

A ResNet-18 (11.2 million weights) on 64 images of 8 x 8 pixels: a product costs about as much as that of torchvision's
ResNet-18 on images of 32 x 32. Larger images make products dearer, and the rest is the same. A row of
`docs/tables/vector-work.csv` holds k, the products, and processor seconds within products and outside of them.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from cases import LOSS
from timing import parser_of, write_table
from torch import Tensor

from landscape import Objective
from landscape.krylov import SymmetricOperator, top_eigenpairs
from ncsam import build_model

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "vector-work.csv"
FIELDS = ("k", "products", "within", "outside", "share")
IMAGES, SIDE = 64, 8


def row_of(k: int, products: int) -> tuple[str, ...]:
    """The columns `FIELDS`; the share is that of the seconds outside of products in those within."""
    generator = torch.Generator().manual_seed(0)
    model = build_model("resnet18", (3, SIDE, SIDE), 10, seed=0).eval()
    inputs = torch.randn(IMAGES, 3, SIDE, SIDE, generator=generator)
    objective = Objective(model, LOSS, (inputs, torch.arange(IMAGES) % 10), linearize=False)
    # the checks of derivatives come first
    objective.hvp(torch.ones(objective.n_parameters))
    within = 0.0

    def product(block: Tensor) -> Tensor:
        nonlocal within
        start = time.process_time()
        found = objective.hvp(block)
        within += time.process_time() - start
        return found

    operator = SymmetricOperator(product, objective.n_parameters, objective.dtype)
    start = time.process_time()
    found = top_eigenpairs(operator, k, tol=1e-3, max_products=products, generator=generator)
    outside = time.process_time() - start - within
    return str(k), str(found.products), f"{within:.1f}", f"{outside:.1f}", f"{outside / within:.2f}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--products", type=int, default=20, help="at most, for each row (default: 20)")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_table(arguments.table, FIELDS, (row_of(k, arguments.products) for k in (1, 5)))


if __name__ == "__main__":
    main()
