"""Fixtures and settings that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run, so that a red run means a change and not a draw of luck. No
# deadline: the machine of the checks may be slow. `pytest --hypothesis-profile=thorough` searches
# afresh, and longer.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("thorough", deadline=None, max_examples=5_000)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of payloads that the venues really sent.

    `TICKERD_RECORDED` names it; a relative path counts from the checkout.
    """
    folder = ROOT / os.environ.get("TICKERD_RECORDED", "../shared/recorded")
    if not folder.is_dir():
        pytest.skip(f"no recorded payloads in {folder}; TICKERD_RECORDED names the folder")
    return folder.resolve()
