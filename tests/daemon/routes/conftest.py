"""Metrics are taken anew each time: a test that scrapes twice wants to see what has happened in between."""

import pytest

from daemon.routes import metrics


@pytest.fixture(autouse=True)
def fresh_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)
