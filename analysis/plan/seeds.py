"""Seeds of a run's random draws."""

from __future__ import annotations

import hashlib

from analysis.plan.run_config import RunConfig


def derived_seed(config: RunConfig, purpose: str) -> int:
    """The seed of one kind of draw in a run.

    It depends on the data set, the noise and the seed of the run, but not on the method. So runs of different methods
    are paired: they have the same wrong labels, initial weights and order of samples.
    """
    noise = config.noise
    key = f"{config.dataset}|{noise.kind}|{noise.rate!r}|{config.seed}|{purpose}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
