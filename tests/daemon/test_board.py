"""What is known of each channel's connector."""

import pytest

from connectors.base import StateChange
from daemon.board import Board, ChannelState
from tests.daemon.sink import CATALOGUE


@pytest.fixture
def board() -> Board:
    return Board(CATALOGUE, 1000)


def test_every_channel_begins_connecting_in_the_catalogues_order(board: Board) -> None:
    assert list(board.states().items()) == [(name, ChannelState("connecting", 1000)) for name in ("a", "b")]


def test_a_state_is_as_old_as_the_state_and_not_as_its_reason(board: Board) -> None:
    assert board.apply(StateChange("a", "down", "refused", 5.0), 2000) == ChannelState("down", 2000, "refused", 5.0)
    assert board.apply(StateChange("a", "down", "no route", 5.0), 3000) == ChannelState("down", 2000, "no route", 5.0)
    assert board.apply(StateChange("a", "down", "no route", 9.0), 3500) == ChannelState("down", 2000, "no route", 9.0)
    assert board.apply(StateChange("a", "live"), 4000) == ChannelState("live", 4000)
    assert board.state("b") == ChannelState("connecting", 1000)


def test_what_changes_nothing_is_not_told(board: Board) -> None:
    assert board.apply(StateChange("a", "connecting"), 2000) is None
    assert board.apply(StateChange("gone", "live"), 2000) is None
    assert board.states()["a"].since_ms == 1000
    assert "gone" not in board.states()


def test_the_last_events_time_is_kept_beside_the_state(board: Board) -> None:
    assert board.state("a").last_event_ms is None
    board.saw("a", 1500)
    board.apply(StateChange("a", "live"), 1600)
    assert board.state("a") == ChannelState("live", 1600, last_event_ms=1500)
    assert board.states()["b"].last_event_ms is None


def test_an_unknown_channel_has_no_state(board: Board) -> None:
    with pytest.raises(KeyError):
        board.state("gone")
