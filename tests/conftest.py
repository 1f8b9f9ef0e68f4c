"""Fixtures and settings that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.process.minute import Minute
from tests.process.running import tickerd, wait_ready

ROOT = Path(__file__).resolve().parent.parent

JUDGES_OF_THE_MINUTE = (
    "test_every_message_of_a_minute_passes_the_validator",
    "test_every_message_of_a_minute_is_as_described",
)

# The same examples on every run, so that a red run means a change and not a draw of luck. No
# deadline: the machine of the checks may be slow. `pytest --hypothesis-profile=thorough` searches
# afresh, and longer.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=10)
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


@pytest.fixture(scope="session", autouse=True)
def minute(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute | None]:
    """A minute of the demo, begun with the first test, so that it passes while the others run."""
    if not any(item.name in JUDGES_OF_THE_MINUTE for item in request.session.items):
        yield None
        return
    with tickerd("demo", "--port", "0") as process:
        wait_ready(process.port)
        client = Minute(process.port, tmp_path_factory.mktemp("minute"))
        yield client
        client.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who judges the minute comes last."""
    items.sort(key=lambda item: item.name in JUDGES_OF_THE_MINUTE)
