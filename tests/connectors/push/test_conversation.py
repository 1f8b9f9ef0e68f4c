"""What a conversation needs, and what it says without being asked: in memory with a jumping clock."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec
import pytest
import trio
from msgspec import Raw
from trio.testing import MockClock
from trio_websocket import WebSocketConnection

from connectors.base import (
    ConnectorError,
    Context,
    Event,
    PayloadError,
    Rows,
    StateChange,
    TopicNote,
    VenueClosed,
    VenueThrottled,
    VenueTimeout,
    VenueUnavailable,
)
from connectors.push import connection
from connectors.push.feed import Feed
from connectors.push.intake import FeedStatistics
from connectors.push.merge import Merge, Side
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    Fetch,
    Heartbeat,
    Reconnect,
    Renew,
    Said,
    Several,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRequest,
)
from protocol.fields import DepthFields, SnapshotFields
from tests.connectors.push.scripted_venue import RULES, Script, Venue, say

NOTHING = Raw(b"[]")


def snapshot(text: str) -> Event:
    return Event("book", "A", text.encode(), 0, fields=SnapshotFields(NOTHING, NOTHING))


def update(text: str) -> Event:
    return Event("book", "A", text.encode(), 0, fields=DepthFields(NOTHING, NOTHING))


class Books(Conversation):
    """Its frames: `snap 5`, `5` (an update), `gap`, `fetch`, `dead`, `later 100`, `never`, `ok`, `left`, `bye`."""

    def __init__(self) -> None:
        self.state = ""
        self.is_whole = False
        self.owed_at_ms: int | None = None
        self.owes_death = False

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Rows | Control:
        match payload.decode().split():
            case ["ok"]:
                return SubscribeAck("a")
            case ["pong"]:
                return Heartbeat()
            case ["left"]:
                return SubscribeEnded("a")
            case ["pong-left-bye"]:
                return Several((Heartbeat(), SubscribeEnded("a"), ClosingNotice("it closes")))
            case ["bye"]:
                return ClosingNotice("it closes")
            case ["snap", state]:
                self.state, self.is_whole = state, True
                return [snapshot(state)]
            case ["gap"]:
                self.is_whole = False
                return Said([], [TopicNote("book", "A", "gap", "a hole")], [Renew("a", "a hole")])
            case ["gap-and-left"]:
                note = TopicNote("book", "A", "gap", "another hole", partial=True)
                return Said([], [note], controls=(SubscribeEnded("a"),))
            case ["fetch"]:
                return Said([], [TopicNote("book", "A", "gap", "a hole")], [Fetch("a", "/a")])
            case ["dead"]:
                return Said([], [], [Reconnect("nothing can be done")])
            case ["later", wait]:
                self.owed_at_ms = received_ms + int(wait)
                return []
            case ["never"]:
                self.owes_death = True
                return []
            case [state] if self.is_whole:
                self.state = state
                return [update(state)]
            case _:
                return []

    def fetched(self, id: str, body: bytes, received_ms: int) -> list[Event] | Rows:
        if body == b"bad":
            raise PayloadError("a bad body")
        if body == b"dead":
            return Said([], [], [Reconnect("the body says so")])
        self.state, self.is_whole = body.decode(), True
        return [snapshot(self.state)]

    def unfetched(self, id: str, reason: str) -> list[TopicNote]:
        return [TopicNote("book", "A", "gap", f"not fetched: {reason}")]

    def waits_ms(self, now_ms: int) -> float | None:
        if self.owes_death:
            return 0
        return None if self.owed_at_ms is None else max(0, self.owed_at_ms - now_ms)

    def tick(self, now_ms: int) -> list[Event] | Rows:
        if self.owes_death:
            return Said([], [], [Reconnect("it never came")])
        self.owed_at_ms = None
        return [update("owed")]

    def restate(self, now_ms: int) -> list[Event]:
        return [snapshot(self.state)] if self.is_whole else []


class BookVenue:
    """One book on one subscription."""

    name, title, rules = "books", "Books", RULES
    channels: tuple[str, ...] = ("book",)
    parts: Mapping[str, tuple[str, ...]] = {}

    def subscribe_requests(self) -> list[SubscribeRequest]:
        return [SubscribeRequest("a", "give a", ("book",), "A", leave="leave a")]

    def converse(self) -> Conversation:
        return Books()


class Hub:
    """Writes down in one order what is published and noted, and when."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.at_s: list[float] = []
        self.changes: list[StateChange] = []

    def _add(self, text: str) -> None:
        self.said.append(text)
        self.at_s.append(trio.current_time())

    async def publish(self, events: Sequence[Event]) -> None:
        await trio.lowlevel.checkpoint()
        for event in events:
            reset = "reset " if isinstance(event.fields, SnapshotFields) else ""
            self._add(reset + event.data.decode())

    async def report(self, change: StateChange) -> None:
        self.changes.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        for note in notes:
            self._add(f"{note.cause} {note.instrument}: {note.reason}")

    def now_ms(self) -> int:
        return int(trio.current_time() * 1000)


class Bodies:
    """Answers of the venue's HTTP interface, one after the other: a body, or an error."""

    def __init__(self, *answers: bytes | ConnectorError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, float]] = []

    async def get(self, path: str) -> bytes:
        self.asked.append((path, trio.current_time()))
        await trio.sleep(0.5)
        answer = self.answers.pop(0)
        if isinstance(answer, ConnectorError):
            raise answer
        return answer


Install = Callable[[Script], Venue]


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Install:
    def install(script: Script) -> Venue:
        venue = Venue(script)
        venue.nursery = nursery
        monkeypatch.setattr(connection, "dial", venue.dial)
        return venue

    return install


async def play(hub: Context, *, bodies: Bodies | None = None, venue: BookVenue | None = None) -> ConnectorError:
    """Run a feed until it raises."""
    feed = Feed(venue or BookVenue(), "ws://venue/", user_agent="t", silence_s=900, fetcher=bodies)
    with trio.fail_after(20_000), pytest.raises(ConnectorError) as caught:
        await feed.run(hub)
    return caught.value


async def test_what_a_gap_says_stands_in_its_place_among_the_events(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1", "2", "gap", "snap 3", "4")(websocket)
        await trio.sleep(1)
        await websocket.aclose(1000, "")

    hub = Hub()
    in_memory(script)
    await play(hub)
    assert hub.said == ["reset 1", "2", "gap A: a hole", "reset 3", "4"]


async def test_a_subscription_is_renewed_at_once_and_then_later_and_later(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1")(websocket)
        for times in (1, 2, 3):
            await websocket.send_message("gap")
            await venue.hears("leave a", times)
            left.append(trio.current_time())
            await websocket.send_message("left")
            await venue.hears("give a", times + 1)
            await say("ok", "snap 2")(websocket)
        await websocket.aclose(1000, "")

    left: list[float] = []
    venue = in_memory(script)
    hub = Hub()
    await play(hub)
    assert [text for text in venue.heard if text != "ping"] == ["give a", *["leave a", "give a"] * 3]
    assert left[0] < 0.2
    assert left[1] - left[0] == pytest.approx(1, abs=0.2)
    assert left[2] - left[1] == pytest.approx(2, abs=0.2)
    assert hub.said[-1] == "reset 2"


async def test_one_message_may_say_several_things(autojump_clock: MockClock, in_memory: Install) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        if len(venue.streams) > 1:
            await trio.sleep_forever()
        await say("ok", "snap 1", "gap")(websocket)
        await venue.hears("leave a", 1)
        await websocket.send_message("pong-left-bye")
        await venue.hears("give a", 2)
        await trio.sleep(1)
        await websocket.aclose(1000, "")

    venue = in_memory(script)
    with trio.move_on_after(5):
        await play(Hub())
    assert [text for text in venue.heard if text != "ping"] == ["give a", "leave a", "give a", "give a"]


async def test_what_a_message_says_beside_its_notes_is_heeded(autojump_clock: MockClock, in_memory: Install) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1", "gap")(websocket)
        await venue.hears("leave a", 1)
        await websocket.send_message("gap-and-left")
        await venue.hears("give a", 2)
        await websocket.aclose(1000, "")

    venue, hub = in_memory(script), Hub()
    with trio.move_on_after(5):
        await play(hub)
    assert [text for text in venue.heard if text != "ping"][:3] == ["give a", "leave a", "give a"]
    assert hub.said[:3] == ["reset 1", "gap A: a hole", "gap A: another hole"]


async def test_what_is_to_be_asked_does_not_wait_because_the_hub_was_busy(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    class Slow(Hub):
        async def publish(self, events: Sequence[Event]) -> None:
            await super().publish(events)
            await trio.sleep(0.5)

    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1", "2", "gap", "snap 3")(websocket)
        await venue.hears("leave a", 1)
        at_s.append(trio.current_time())
        await websocket.aclose(1000, "")

    at_s: list[float] = []
    venue = in_memory(script)
    hub = Slow()
    await play(hub)
    assert at_s[0] < 2


async def test_a_venue_that_does_not_end_a_subscription_gets_another_connection(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    in_memory(say("ok", "snap 1", "gap"))
    error = await play(Hub())
    assert isinstance(error, VenueTimeout)
    assert str(error) == "Books did not end the subscription of A"
    assert trio.current_time() == pytest.approx(10, abs=1)


async def test_what_is_needed_is_fetched_once_however_often_it_is_asked_for(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "fetch", "fetch", "fetch")(websocket)
        await trio.sleep(5)
        await say("2")(websocket)
        await trio.sleep(1)
        await websocket.aclose(1000, "")

    hub, bodies = Hub(), Bodies(b"1")
    in_memory(script)
    await play(hub, bodies=bodies)
    assert [path for path, _ in bodies.asked] == ["/a"]
    assert hub.said[-2:] == ["reset 1", "2"]


async def test_what_cannot_be_fetched_is_told_and_tried_again_later_and_later(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "fetch")(websocket)
        await trio.sleep(100)
        await websocket.aclose(1000, "")

    hub = Hub()
    asked_to_wait = VenueThrottled("Books asked for a pause", retry_after_s=30)
    bodies = Bodies(VenueUnavailable("no way there"), b"bad", asked_to_wait, b"7")
    in_memory(script)
    await play(hub, bodies=bodies)
    times = [at_s for _, at_s in bodies.asked]
    assert [later - earlier for earlier, later in pairwise(times)] == [
        pytest.approx(1.5),
        pytest.approx(2.5),
        pytest.approx(30.5),
    ]
    assert hub.said[1] == "gap A: not fetched: no way there"
    assert hub.said[-1] == "reset 7"


async def test_without_an_address_to_fetch_from_it_says_so(autojump_clock: MockClock, in_memory: Install) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "fetch")(websocket)
        await trio.sleep(2)
        await websocket.aclose(1000, "")

    hub = Hub()
    in_memory(script)
    await play(hub)
    assert hub.said[1] == "gap A: not fetched: Books has no address to fetch from"


async def test_a_conversation_may_want_another_connection(autojump_clock: MockClock, in_memory: Install) -> None:
    in_memory(say("ok", "dead"))
    error = await play(Hub())
    assert isinstance(error, VenueClosed)
    assert str(error) == "nothing can be done"
    assert trio.current_time() < 1


async def test_what_is_due_is_said_without_a_frame(autojump_clock: MockClock, in_memory: Install) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1", "later 100")(websocket)
        await trio.sleep(10)
        await websocket.aclose(1000, "")

    hub = Hub()
    in_memory(script)
    await play(hub)
    assert hub.said == ["reset 1", "owed"]
    assert hub.at_s[1] - hub.at_s[0] == pytest.approx(0.1, abs=0.02)


async def test_what_is_due_sooner_is_not_kept_waiting_by_what_is_due_later(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1", "later 8000")(websocket)
        await trio.sleep(1)
        await say("later 100")(websocket)
        await trio.sleep(10)
        await websocket.aclose(1000, "")

    hub = Hub()
    in_memory(script)
    await play(hub)
    assert hub.said == ["reset 1", "owed"]
    assert hub.at_s[1] - hub.at_s[0] == pytest.approx(1.1, abs=0.1)


@pytest.mark.parametrize(("frame", "reason"), [("never", "it never came"), ("fetch", "the body says so")])
async def test_another_connection_may_be_wanted_without_a_frame(
    autojump_clock: MockClock, in_memory: Install, frame: str, reason: str
) -> None:
    in_memory(say("ok", "snap 1", frame))
    error = await play(Hub(), bodies=Bodies(b"dead"))
    assert isinstance(error, VenueClosed)
    assert str(error) == reason
    assert trio.current_time() < 1


async def test_requests_keep_their_distance(autojump_clock: MockClock, in_memory: Install) -> None:
    class Spaced(BookVenue):
        rules = msgspec.structs.replace(RULES, request_spacing_s=0.25)

        def subscribe_requests(self) -> list[SubscribeRequest]:
            return [SubscribeRequest(str(n), f"give {n}", ("book",), str(n)) for n in range(5)]

    async def script(websocket: WebSocketConnection) -> None:
        for number in range(5):
            await venue.hears(f"give {number}", 1)
            at_s.append(trio.current_time())
        await websocket.aclose(1000, "")

    at_s: list[float] = []
    venue = in_memory(script)
    await play(Hub(), venue=Spaced())
    assert venue.heard == [f"give {n}" for n in range(5)]
    assert at_s[-1] - at_s[0] == pytest.approx(1.0, abs=0.1)


async def test_of_a_channel_in_parts_only_the_instruments_are_told_when_a_connection_fails(
    autojump_clock: MockClock, in_memory: Install
) -> None:
    class Partly(BookVenue):
        channels: tuple[str, ...] = ("book", "own")
        parts: Mapping[str, tuple[str, ...]] = {"book": ("A",)}

    async def script(websocket: WebSocketConnection) -> None:
        await say("ok", "snap 1")(websocket)
        await websocket.aclose(4004, "bye")

    hub, venue = Hub(), Partly()
    in_memory(script)
    await play(hub, venue=venue)
    assert Feed(venue, "ws://venue/", user_agent="t").channels == ("own",)
    assert hub.said == ["reset 1", "gap A: the connection to Books closed: 4004 bye"]


class TestTakingOver:
    """Books cannot be merged event by event: the old connection speaks of them, and then the new one begins anew."""

    async def test_the_new_one_restates_its_books_and_nothing_of_before_comes_twice(self) -> None:
        hub = Hub()
        merge = Merge(hub, FeedStatistics())
        old, new = Side(merge, speaks=True), Side(merge, speaks=False)
        state = ["9"]
        new.restate = lambda: [snapshot(state[0])]
        await old.publish([snapshot("1"), update("2")])
        overlap = merge.begin(new)
        await new.publish([snapshot("2"), update("3")])
        await old.publish([update("3")])
        assert overlap.met == {("book", "A")}
        await merge.drop_old(overlap, new, {})
        assert hub.said == ["reset 1", "2", "3"]
        await new.publish([update("8"), update("9")])
        state[0] = "10"
        await new.publish([update("10")])
        assert hub.said == ["reset 1", "2", "3", "reset 9", "10"]
        assert overlap.is_over

    @pytest.mark.parametrize("heals", [True, False])
    async def test_a_book_that_the_new_one_has_lost_is_told_when_it_speaks(self, heals: bool) -> None:
        hub = Hub()
        merge = Merge(hub, FeedStatistics())
        old, new = Side(merge, speaks=True), Side(merge, speaks=False)
        await old.publish([snapshot("1")])
        overlap = merge.begin(new)
        await new.publish([snapshot("1")])
        await new.note([TopicNote("book", "A", "gap", "a hole"), TopicNote("book", "A", "halted", "at rest")])
        if heals:
            await new.publish([snapshot("3")])
        assert hub.said == ["reset 1"]
        await merge.drop_old(overlap, new, {})
        assert hub.said[1:] == ([] if heals else ["gap A: a hole"])

    async def test_the_old_one_goes_on_where_the_new_one_fails(self) -> None:
        hub = Hub()
        merge = Merge(hub, FeedStatistics())
        old, new = Side(merge, speaks=True), Side(merge, speaks=False)
        await old.publish([snapshot("1")])
        overlap = merge.begin(new)
        await new.publish([snapshot("1"), update("2")])
        await merge.drop_new(overlap)
        await old.publish([update("2"), update("3")])
        assert hub.said == ["reset 1", "2", "3"]

    async def test_over_a_notice_a_client_of_the_book_sees_one_book(
        self, autojump_clock: MockClock, in_memory: Install
    ) -> None:
        """Each connection is sent the present state first, and then every change."""
        begun: list[WebSocketConnection] = []

        async def script(websocket: WebSocketConnection) -> None:
            number = len(begun)
            begun.append(websocket)
            await say("ok", f"snap {int(trio.current_time() * 10)}")(websocket)
            for tick in range(40):
                await trio.sleep(0.1)
                await websocket.send_message(str(int(trio.current_time() * 10)))
                if number == 0 and tick == 20:
                    await websocket.send_message("bye")
            if number:
                await websocket.aclose(1000, "")

        hub = Hub()
        in_memory(script)
        await play(hub)
        resets = [said for said in hub.said if said.startswith("reset")]
        states = [int(said.removeprefix("reset ")) for said in hub.said]
        assert len(begun) == len(resets) == 2
        assert states == sorted(states)
        assert max(b - a for a, b in pairwise(states)) <= 5, "half a second: until the new one's next frame"
