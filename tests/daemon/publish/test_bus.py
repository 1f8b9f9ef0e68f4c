"""What is appended to the tape reaches every follower once, in order, and before anything else can happen."""

from connectors.base import Event, StateChange
from daemon.ingest.inbox import Turn
from daemon.publish.bus import Appended
from daemon.tape.tape import STATUS
from tests.daemon.fanout.sink import START_MS, Fan

A, B = ("a", "X/U"), ("b", "X/U")


class Recorder:
    """A follower that writes down what it is handed, and where the tape's head was then."""

    def __init__(self, name: str, fan: Fan, calls: list[str]) -> None:
        self.name = name
        self.fan = fan
        self.calls = calls
        self.handed: list[tuple[int, list[int], list[int]]] = []

    def follow(self, appended: Appended) -> None:
        assert self.fan.tape.head == appended.entries[-1].seq, "something was appended meanwhile"
        self.calls.append(self.name)
        self.handed.append((appended.before, [entry.seq for entry in appended.entries], list(appended.received_ms)))


def followed() -> tuple[Fan, list[Recorder], list[str]]:
    """A hub, and two more followers of its bus."""
    fan, calls = Fan(max_entries=1000), list[str]()
    recorders = [Recorder(name, fan, calls) for name in ("first", "second")]
    for recorder in recorders:
        fan.bus.add(recorder)
    return fan, recorders, calls


def event(channel: str, *, cached: bool = False, size: int = 1) -> Event:
    data = b'"%s"' % (b"x" * size)
    return Event(channel, "X/U", data=data, received_ms=START_MS, price="1.50", cached=cached)


def test_every_follower_has_each_pass_once_in_the_order_in_which_they_were_added() -> None:
    fan, recorders, calls = followed()
    client = fan.connect()
    client.subscribe("a", "b")
    client.messages()
    fan.sequencer.publish([[event("a"), event("b", cached=True)], StateChange("b", "down", "refused")])
    fan.sequencer.publish([[event("a")]])
    for recorder in recorders:
        assert recorder.handed == [(0, [1, 2, 3], [START_MS, 0, 0]), (3, [4], [START_MS])]
    assert calls == ["first", "second"] * 2
    assert client.seqs() == [1, 2, 4], "the fan-out is a follower like the others"


def test_a_long_pass_is_handed_over_in_parts_that_join_up() -> None:
    fan, recorders, _ = followed()
    fan.sequencer.publish([[event("a", size=30_000) for _ in range(7)]])
    for recorder in recorders:
        assert len(recorder.handed) > 1
        assert [seq for _, seqs, _ in recorder.handed for seq in seqs] == list(range(1, 8))
        ends = [seqs[-1] for _, seqs, _ in recorder.handed]
        assert [before for before, _, _ in recorder.handed] == [0, *ends[:-1]]


def test_a_turn_comes_when_everything_before_it_has_been_handed_over_and_nothing_behind_it() -> None:
    fan, [recorder, _], _ = followed()
    seen: list[int] = []
    act = Turn(lambda: seen.append(recorder.handed[-1][1][-1]))
    fan.sequencer.publish([[event("a"), event("a")], act, [event("b")]])
    assert seen == [2]
    assert [seqs for _, seqs, _ in recorder.handed] == [[1, 2], [3]]


def test_a_refused_event_takes_no_position_and_a_pass_of_none_is_not_handed_over() -> None:
    fan, [recorder, _], _ = followed()
    fan.sequencer.publish([[Event("gone", "X/U", data=b"{}", received_ms=1)]])
    fan.sequencer.publish([])
    assert recorder.handed == []
    fan.sequencer.publish([[event("a"), Event("gone", "X/U", data=b"{}", received_ms=1), event("a")]])
    assert recorder.handed == [(0, [1, 2], [START_MS, START_MS])]


def test_what_is_told_beside_the_passes_is_handed_over_at_once() -> None:
    fan, [recorder, _], _ = followed()
    fan.sequencer.tell(("a", STATUS), b"{}")
    fan.sequencer.broadcast_test("hello")
    assert [(seqs, received) for _, seqs, received in recorder.handed] == [([1], [0]), ([2], [0])]
