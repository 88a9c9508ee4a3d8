"""Settings of tests that draw their cases: the same few cases each time; fresh ones, and more, in `make soak`."""

import os

from hypothesis import HealthCheck, settings

FRESH = "FRESH_CASES" in os.environ
MORE = 5
"""Times as many cases, if they are fresh."""


def drawn(cases):
    """So many cases for a test under `@given`."""
    return settings(
        max_examples=MORE * cases if FRESH else cases,
        derandomize=not FRESH,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
