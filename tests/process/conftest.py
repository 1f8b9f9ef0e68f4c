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


@pytest.fixture(scope="session")
def eight_port() -> Iterator[int]:
    """A demo daemon with the eight channels of the beginning, all of them live."""
    with tickerd("demo", "--port", "0", environ={"TICKERD_CATALOGUE__PRESETS": '["seed"]'}) as process:
        wait_ready(process.port)
        yield process.port
