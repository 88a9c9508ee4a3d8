"""Memory and time of GPT-2 small's configuration, 124 million weights: random weights, float32, few short sequences.

    python bench/memory.py                                # 9 GB at most, some minutes on one core
    python bench/memory.py --layers 2 --width 128         # a small one

Each row is a process of its own, under the default memory budget of 2 GiB unless another is given. Memory is the peak
beside the caller's model, in sizes of the model; the copy that an Objective keeps counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import parser_of, table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from landscape import Objective, filter_normalized_directions, sharpness, tasks, top_eigenvalues
from ncsam import SAM

SEQUENCES, TOKENS = 2, 16


def language_model(layers: int, width: int, words: int) -> nn.Module:
    """GPT-2 with random weights."""
    torch.manual_seed(0)
    settings = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=max(1, width // 64),
        vocab_size=words,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return GPT2LMHeadModel(settings).eval()


def batch_of(words: int) -> dict[str, Tensor]:
    """Random tokens, which are their own labels."""
    tokens = torch.randint(words, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}


def memory(field: str) -> int:
    """Bytes: VmRSS, what the process holds now; VmHWM, the most that it held."""
    with open("/proc/self/status") as status:
        return 1024 * int(next(line for line in status if line.startswith(field)).split()[1])


def eigenvalue(objective: Objective) -> str:
    """Finds the largest eigenvalue."""
    found = top_eigenvalues(objective, 1, tol=0.03)
    return f"{found.products} products, {_verdict(bool(found.converged.all()))}"


def directions(objective: Objective) -> str:
    """Makes two directions for a surface."""
    filter_normalized_directions(objective, 2)
    return ""


def worst_case(objective: Objective) -> str:
    """Finds the sharpness."""
    found = sharpness(objective, rho=0.05)
    return f"{found.gradients} gradients, {_verdict(found.converged)}"


def _verdict(converged: bool) -> str:
    return "converged" if converged else "not converged"


MEASURES: dict[str, tuple[Callable[[Objective], str], int]] = {
    "two directions": (directions, 4),
    "one eigenvalue": (eigenvalue, 8),
    "sharpness": (worst_case, 6),
}
"""What is measured, and the goal in model sizes."""

STEP = "a step of SAM"


def step_of_sam(model: nn.Module, batch: dict[str, Tensor]) -> str:
    """One step of training."""
    loss: Any = tasks.next_token_loss
    method = SAM(model, loss, rho=0.05, **tasks.causal_language_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    method.backward(batch)
    optimizer.step()
    return ""


def measured(row: str, model: nn.Module, words: int, budget: int) -> tuple[float, float, str]:
    """Peak memory in model sizes, seconds, and what was found."""
    torch.set_num_threads(1)
    size = sum(parameter.nbytes for parameter in model.parameters())
    before, started = memory("VmRSS"), time.perf_counter()
    batch = batch_of(words)
    if row == STEP:
        found = step_of_sam(model, batch)
    else:
        task = tasks.causal_language_model()
        objective = Objective(model, tasks.next_token_loss, [batch], memory_budget=budget, **task)
        found = MEASURES[row][0](objective)
    return (memory("VmHWM") - before) / size, time.perf_counter() - started, found


def row_of(row: str, arguments: list[str]) -> list[str]:
    """The cells of a row, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--one", row], check=True, capture_output=True, text=True
    )
    sizes, seconds, found = json.loads(done.stdout.splitlines()[-1])
    goal = str(MEASURES[row][1]) if row in MEASURES else ""
    return [row, f"{sizes:.1f}", goal, f"{seconds:.0f}", found]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--words", type=int, default=50257)
    parser.add_argument("--budget", type=int, default=2 * 1024**3, help="memory budget in bytes")
    parser.add_argument("--rows", default=";".join([*MEASURES, STEP]), help="separated by semicolons")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = language_model(arguments.layers, arguments.width, arguments.words)
    if arguments.one:
        print(json.dumps(measured(arguments.one, model, arguments.words, arguments.budget)))
        return
    weights = sum(parameter.numel() for parameter in model.parameters())
    del model
    table(
        f"{weights / 1e6:.0f} million weights, {SEQUENCES} sequences of {TOKENS} tokens",
        ["measured", "memory, model sizes", "goal", "seconds", "found"],
        (row_of(row, sys.argv[1:]) for row in arguments.rows.split(";")),
    )


if __name__ == "__main__":
    main()
