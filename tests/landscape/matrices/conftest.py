"""What the tests of matrices share."""

import pytest


@pytest.fixture
def traced_at_once(monkeypatch):
    """Products are traced as if tracing cost nothing."""
    monkeypatch.setattr("landscape.matrices.products.pays", lambda *_, **__: True)
