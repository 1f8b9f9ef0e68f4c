"""The list of venues: what each row says agrees with what stands elsewhere."""

from pathlib import Path

import pytest

from connectors.simulator.simulator import SIMULATED
from connectors.venues.coingecko.polls import ENDPOINTS
from connectors.venues.registry import COINGECKO, VENUES
from daemon.config.settings import File
from daemon.config.venues import proxies, secrets, url_keys
from protocol.channels import Channel
from protocol.kinds import KINDS

ROOT = Path(__file__).resolve().parents[3]


def test_every_kind_of_a_venue_is_one_that_there_is_and_every_one_has_a_venue() -> None:
    assert {kind for venue in VENUES.values() for kind in venue.kinds} == set(KINDS)
    assert set(COINGECKO.kinds) == set(ENDPOINTS)


def test_every_venue_has_its_table_in_the_configuration_can_be_switched_off_and_says_where_it_is() -> None:
    told = [venue for venue in VENUES.values() if not venue.is_derived]
    assert File().connectors.__struct_fields__ == tuple(venue.name for venue in told)
    for venue in told:
        assert File().connectors.of(venue) == venue.settings()
        assert venue.settings().enabled is True
        assert url_keys(venue)


@pytest.mark.parametrize("name", list(VENUES))
def test_a_venue_makes_connectors_for_its_channels_and_none_without_any(name: str) -> None:
    venue = VENUES[name]
    channels = [
        Channel(
            name=f"x{kind}",
            exchange=name,
            kind=KINDS[kind],
            instruments=() if KINDS[kind].whole_market else ("BTC/USDT",),
            cadence_s=10.0 if kind in venue.polled else None,
            interval=venue.usual_interval,
        )
        for kind in venue.kinds
    ]
    made = venue.build(channels, venue.settings(), "tickerd/test")
    served = [] if venue.is_derived else [channel.name for channel in channels]
    assert [channel for connector in made for channel in connector.channels] == served
    assert venue.build([], venue.settings(), "tickerd/test") == []


def test_the_secrets_are_those_that_the_unit_file_names() -> None:
    assert secrets() == {"coingecko_api_key": ("connectors", "coingecko", "api_key")}
    assert proxies() == {
        f"{name}_proxy": ("connectors", name, "proxy") for name, venue in VENUES.items() if not venue.is_derived
    }
    unit = (ROOT / "systemd" / "tickerd.service").read_text()
    assert all(name in unit for name in secrets())


def test_what_is_simulated_are_venues() -> None:
    assert SIMULATED.keys() <= VENUES.keys()


def test_the_readme_names_every_venue_as_people_write_it() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [venue.title for venue in VENUES.values() if venue.title not in readme] == []
