"""Where a run's random draws come from."""

from __future__ import annotations

import hashlib
from typing import Any


def derived_seed(config: dict[str, Any], purpose: str) -> int:
    """The seed of one kind of draw in a run.

    It depends on data set, noise and seed but not on the method, so that runs of different methods are paired:
    same wrong labels, same initial weights, same order of samples.
    """
    noise = config["noise"]
    key = f"{config['dataset']}|{noise['kind']}|{noise['rate']!r}|{config['seed']}|{purpose}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
