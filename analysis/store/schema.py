"""Versions of the run files, and how an older one is read.

1: version 0.1.0. No checksum; no word of what that version could not do.
2: sealed with a checksum; every setting is written down.
"""

from __future__ import annotations

from typing import Any

from analysis.study import LossSettings, MeasureSettings, SelectionSettings, TrainingSettings

SCHEMA_VERSION = 2
FIRST_SEALED = 2


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration in today's form.

    A setting that came later has the default that leaves things as they were before.

    Raises:
        KeyError, ValueError: not a run's configuration.
    """
    filled: dict[str, Any] = {"train_samples": None, "test_samples": None, "image_size": None, **config}
    filled["noise"] = {"options": {}, **config["noise"]}
    filled["method"] = {"mixup": None, "loss": LossSettings().model_dump(), **config["method"]}
    for section, settings in (
        ("training", TrainingSettings),
        ("selection", SelectionSettings),
        ("measure", MeasureSettings),
    ):
        if section in config:
            filled[section] = settings.model_validate(config[section]).model_dump()
    return filled
