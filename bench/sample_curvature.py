"""How many samples a second `sample_curvature` measures: a small CNN on images of 28 x 28, ten classes.

python bench/sample_curvature.py --samples 256 --threads 1
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from landscape import Objective, sample_curvature
from ncsam import build_model

CASES = {
    "gradient norm and cosine": ["gradient_norm", "gradient_cosine"],
    "Gauss-Newton and Fisher trace, exact": ["gauss_newton_trace", "fisher_trace"],
    "Hessian trace, 4 probes": ["hessian_trace"],
    "curvature in the input, 4 probes": ["input_trace", "input_curvature"],
    "all": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(arguments.samples, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (arguments.samples,), generator=generator)
    model = build_model("cnn", (1, 28, 28), 10, seed=0)
    objective = Objective(model, nn.CrossEntropyLoss(), (images, labels))
    print(f"{objective.n_parameters:,} weights, {arguments.samples} samples, {arguments.threads} threads")
    sample_curvature(objective.subset(samples=torch.arange(8)))
    for name, measures in CASES.items():
        wall, processor = time.perf_counter(), time.process_time()
        sample_curvature(objective, measures=measures, probes=4)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rate = arguments.samples / processor
        print(
            f"{name}: {rate:.0f} a second of processor time ({arguments.samples / wall:.0f} by the clock), "
            f"{50_000 / rate / 60:.1f} min for 50,000",
            flush=True,
        )


if __name__ == "__main__":
    main()
