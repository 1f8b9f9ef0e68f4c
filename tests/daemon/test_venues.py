"""A venue has one name, by which everything that it needs is found."""

import msgspec

from daemon.app import BUILDERS
from daemon.config.channels import SCHEDULED
from daemon.config.settings import Connectors
from protocol.channels import KINDS


def test_every_venue_has_kinds_of_channels_a_section_and_a_builder() -> None:
    sections = Connectors.__struct_fields__
    assert set(KINDS) == set(sections) == set(BUILDERS)
    assert set(KINDS) >= SCHEDULED


def test_every_section_can_be_switched_off_and_says_where_the_venue_is() -> None:
    for section in msgspec.structs.astuple(Connectors()):
        assert section.enabled is True
        assert hasattr(section, "url") != hasattr(section, "base_url")
