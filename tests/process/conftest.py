"""Demo daemons for all tests that only look at one, and simulated venues under load."""

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="module")
def busy_venues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Simulated venues under load, and the configuration that names them."""
    config = tmp_path_factory.mktemp("busy") / "tickerd.toml"
    with tickerd("simulate", "--port", "0", "--okx-rate", "60", "--config-out", str(config)) as process:
        assert process.port
        yield config
