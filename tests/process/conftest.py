"""One demo daemon for all tests that only look at it."""

from collections.abc import Iterator

import pytest

from tests.process.running import tickerd, wait_ready


@pytest.fixture(scope="session")
def demo_port() -> Iterator[int]:
    """A demo daemon with every channel live."""
    with tickerd("demo", "--port", "0") as process:
        wait_ready(process.port)
        yield process.port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A minute of a running daemon is recorded while the other tests run; who judges it comes last."""
    items.sort(key=lambda item: item.name == "test_every_message_of_a_minute_passes_the_validator")
