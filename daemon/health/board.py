"""The board: the current state of every channel, since when, why, and when data last came.

Five sources report on a channel, each from its own point of view, and none may overwrite another:

* its *connector* (`connectors.base.StateChange`): whether there is a link to the venue, and why not;
* the *freshness* contract (`daemon.health.freshness`): whether data comes in time, whatever the connector reports;
* the *cross-check* (`daemon.health.crosscheck`): whether the data is plausible;
* the *recorder* (`daemon.publish.recording`): whether what the venues send is recorded, where it should be;
* the *topics* (`daemon.health.topics`): how each instrument does, by its own data and by what its connector noted.

The last four pass *verdicts*. Only the board combines all reports into the one state that clients see: the worst of
them, with the reasons joined. One instrument's trouble is not the channel's, unless it is that of all. While a
connector is `reconnecting`, `down` or `stale`, only its own report counts: that it has no data explains everything
else.

The sequencer writes the board, in the same step in which it tells the clients; all others only read it. So `/channels`,
`/readyz` and the `status` messages can never disagree.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET

from connectors.base import Event, State, StateChange, TopicNote
from connectors.metric import Samples
from daemon.host.clock import WallClock
from protocol.channels import WHOLE_MARKET, Catalogue, Channel
from protocol.messages import Status, TopicCause, TopicStatus

Source: TypeAlias = Literal["freshness", "crosscheck", "record"]
"""The sources of verdicts, in the order in which their reasons are joined."""

_SOURCES: Final[tuple[Source, ...]] = ("freshness", "crosscheck", "record")

_log: Final = logging.getLogger(__name__)

_NOT_YET: Final = "its connector has not been started yet"

_UNHEARD: Final = frozenset({"connecting", "reconnecting", "down"})
"""States in which there is no data, and was none."""

_OPEN: Final = frozenset({"live", "connecting"})
"""The connector's states in which verdicts count."""


MOST_NAMED: Final = 3
"""How many instruments a channel's reason names; `topics` has them all."""

MOST_TOPICS: Final = 50
"""How many topics a `status` describes: it is sent to every subscriber. `GET /channels` has them all."""


class Condition(msgspec.Struct, frozen=True):
    """How a topic does that does not do as well as its channel; see `protocol.messages.TopicStatus`."""

    state: State
    cause: TopicCause
    reason: str


class TopicState(msgspec.Struct, frozen=True):
    """Such a condition, and since when its state is that (ms since 1970)."""

    condition: Condition
    since_ms: int


class ChannelState(msgspec.Struct, frozen=True):
    """One channel's state. Times are ms since 1970.

    `last_event_ms` is None until the first data has come. `stale_after_s` says how long the channel may currently be
    silent; None until that is known. `topics` are those that do not do as well as the channel, by instrument.
    """

    state: State
    since_ms: int
    reason: str = ""
    retry_in_s: float | None = None
    last_event_ms: int | None = None
    stale_after_s: float | None = None
    topics: Mapping[str, TopicState] = {}


class Verdict(msgspec.Struct, frozen=True):
    """What `source` reports: `stale`, or only a remark (`live`). Without a reason it withdraws its last report.

    `instruments`: which it is about; empty for all of the channel.
    """

    channel: str
    source: Source
    state: Literal["live", "stale"]
    reason: str = ""
    instruments: frozenset[str] = frozenset()


class TopicVerdict(msgspec.Struct, frozen=True):
    """How the topics of a channel do: all that do not do as well as the channel, by instrument."""

    channel: str
    topics: Mapping[str, Condition]


class Noted(msgspec.Struct):
    """What a connector noted of a topic, and the topic's newest event at that time.

    `times` grows with each note of that cause.
    """

    note: TopicNote
    after: Event | None
    times: int = 1


class Seen:
    """What a channel has delivered since the start.

    Attributes:
        events: how many events.
        last: the newest event.
        set_back: a `received_ms`, and how far the clock was set back since.
        fresh: how many events were more than a repeated body.
        newest: the newest of these.
        latest: the newest event of each instrument.
        notes: what the connector noted, by instrument and cause, until it is withdrawn.
    """

    __slots__ = ("events", "fresh", "last", "latest", "newest", "notes", "set_back")

    def __init__(self) -> None:
        self.events = self.fresh = 0
        self.last: Event | None = None
        self.newest: Event | None = None
        self.latest: dict[str, Event] = {}
        self.notes: dict[str, dict[TopicCause, Noted]] = {}
        self.set_back = (0, 0)

    @property
    def last_ms(self) -> int | None:
        """When what the newest event says came, by the clock as it is now; None before the first."""
        if self.last is None:
            return None
        stamped_ms, by_ms = self.set_back
        return self.last.received_ms - (by_ms if self.last.received_ms == stamped_ms else 0)


class Board:
    """The state of every channel of the catalogue.

    Attributes:
        catalogue: the channels; `adopt` replaces it.
        gaps: the topics (channel, instrument) that are stale because of a gap, until their data comes again.
    """

    def __init__(self, catalogue: Catalogue, now_ms: int) -> None:
        self.catalogue = catalogue
        self._states = {name: ChannelState("connecting", now_ms) for name in catalogue.names}
        self._connectors = {name: StateChange(name, "connecting") for name in catalogue.names}
        self._verdicts: dict[str, dict[Source, Verdict]] = {name: {} for name in catalogue.names}
        self._topics: dict[str, Mapping[str, TopicState]] = {name: {} for name in catalogue.names}
        self._seen = {name: Seen() for name in catalogue.names}
        self._odd: Counter[tuple[str, TopicCause]] = Counter()
        self.gaps: set[tuple[str, str]] = set()
        self._stale_after_s: dict[str, float] = {}
        self._followed: dict[str, ChannelState] = {}
        self._cut_off: tuple[str, int] | None = None

    def follow(self, states: Mapping[str, ChannelState], *, anew: bool = False) -> None:
        """Show these states as they are: another process has judged them. They hold until `lead`.

        `anew`: forget those that were followed until now.
        """
        self._followed = {**({} if anew else self._followed), **states}

    def cut_off(self, reason: str, now_ms: int) -> None:
        """Nobody tells this process how the channels are: those that were fine are `stale`, until `reason` is ""."""
        self._cut_off = (reason, now_ms) if reason else None

    def lead(self, now_ms: int) -> None:
        """Judge by oneself from now on, beginning with the states that clients were told last."""
        for name, told in self._followed.items():
            if name in self._states:
                self._states[name] = msgspec.structs.replace(told, last_event_ms=None, stale_after_s=None)
                self._topics[name] = told.topics
                self._connectors[name] = StateChange(name, told.state, told.reason, told.retry_in_s)
        self._followed = {}

    def adopt(self, catalogue: Catalogue, changed: AbstractSet[str], now_ms: int) -> None:
        """Replace the catalogue. Of new or `changed` channels only the state that clients were told last is kept.

        A new channel starts as `down`, so that its connector's first report reaches clients that subscribed earlier.
        """
        self.catalogue = catalogue
        kept = [name for name in catalogue.names if name in self._states]
        states, connectors, verdicts, seen = self._states, self._connectors, self._verdicts, self._seen
        self._states = {name: ChannelState("down", now_ms, _NOT_YET) for name in catalogue.names}
        self._states |= {name: states[name] for name in kept}
        self._connectors = {name: StateChange(name, "down", _NOT_YET) for name in catalogue.names}
        self._connectors |= {name: connectors[name] for name in kept}
        self._verdicts = {name: {} for name in catalogue.names}
        topics, self._topics = self._topics, {name: {} for name in catalogue.names}
        self._seen = {name: Seen() for name in catalogue.names}
        for name in kept:
            if name not in changed:
                self._verdicts[name], self._seen[name] = verdicts[name], seen[name]
                self._topics[name] = topics[name]
        self.gaps = {topic for topic in self.gaps if topic[0] in kept and topic[0] not in changed}
        self._stale_after_s = {name: self._stale_after_s[name] for name in kept if name in self._stale_after_s}
        self._followed = {name: self._followed[name] for name in kept if name in self._followed}

    def apply(self, change: StateChange | Verdict | TopicVerdict, now_ms: int) -> ChannelState | None:
        """Note a change. Returns None if clients see no difference, or if the channel is not (or no longer) known.

        `since_ms` moves only with the state itself: another reason for the same state does not make it younger.
        """
        name = change.channel
        old = self._states.get(name)
        if old is None:
            return None
        if isinstance(change, StateChange):
            self._connectors[name] = change
            if change.state not in _OPEN:
                # From now on only the connector counts: earlier verdicts are void.
                self._verdicts[name].clear()
                self._topics[name] = {}
                self._seen[name].notes.clear()
                self.gaps = {topic for topic in self.gaps if topic[0] != name}
        elif isinstance(change, TopicVerdict):
            self._topics[name] = self._dated(name, change.topics, now_ms)
        elif change.reason:
            self._verdicts[name][change.source] = change
        else:
            self._verdicts[name].pop(change.source, None)
        topics = self._topics[name]
        told = _combined(self._connectors[name], self._verdicts[name], self.catalogue.get(name), topics)
        if (old.state, old.reason, old.retry_in_s, old.topics) == (told.state, told.reason, told.retry_in_s, topics):
            return None
        since_ms = old.since_ms if old.state == told.state else now_ms
        new = self._states[name] = ChannelState(told.state, since_ms, told.reason, told.retry_in_s, topics=topics)
        if old.state != new.state:
            said = {"event": "state", "channel": name, "before": old.state, "state": new.state, "reason": new.reason}
            # How a connector tries again and again is told by its supervisor.
            level = logging.DEBUG if {old.state, new.state} <= _UNHEARD else logging.INFO
            _log.log(level, "channel %s is %s, was %s", name, new.state, old.state, extra=said)
        return new

    def _dated(self, name: str, conditions: Mapping[str, Condition], now_ms: int) -> dict[str, TopicState]:
        """Conditions with the time since when each topic's state is that."""
        held = self._topics[name]
        dated: dict[str, TopicState] = {}
        for instrument, condition in conditions.items():
            before = held.get(instrument)
            same = before is not None and before.condition.state == condition.state
            dated[instrument] = TopicState(condition, before.since_ms if before is not None and same else now_ms)
        return dated

    def note(self, note: TopicNote) -> TopicVerdict | None:
        """A connector's note about a topic. What clients are told of it is for a `TopicVerdict` to say.

        Returns the verdict on a gap, which clients are told at once; all else waits for `daemon.health.topics`.
        """
        seen = self._seen.get(note.channel)
        if seen is None:
            return None
        self._odd[note.channel, note.cause] += note.count
        topic, name = (note.channel, note.instrument), note.instrument
        if self._connectors[note.channel].state not in _OPEN or (note.partial and topic in self.gaps):
            return None
        held = seen.notes.setdefault(note.instrument, {})
        before = held.get(note.cause)
        if before is not None and before.note.listed and not note.listed:
            return None  # the venue's list is plainer than what it says to a request
        times = 1 if before is None else before.times + 1
        held[note.cause] = Noted(note, seen.latest.get(note.instrument), times)
        conditions = self.conditions(note.channel)
        told = conditions.get(name)
        if note.cause != "gap" or (told is not None and (note.partial or told.cause in ("refused", "halted"))):
            return None
        if not note.partial:
            self.gaps.add(topic)
        conditions[name] = Condition("live" if note.partial else "stale", "gap", note.reason)
        said = {"channel": note.channel, "instrument": name}
        _log.warning("%s: %s is %s: %s", note.channel, name, conditions[name].state, note.reason, extra=said)
        return TopicVerdict(note.channel, conditions)

    def whole(self, channel: str, instrument: str) -> TopicVerdict:
        """The data of a topic of `gaps` comes again. Returns the verdict to publish."""
        self.gaps.discard((channel, instrument))
        self.withdraw(channel, instrument, "gap")
        conditions = self.conditions(channel)
        if instrument in conditions and conditions[instrument].cause == "gap":
            del conditions[instrument]
            said = {"channel": channel, "instrument": instrument}
            _log.info("%s: %s: well again", channel, instrument or "its rows", extra=said)
        return TopicVerdict(channel, conditions)

    def conditions(self, channel: str) -> dict[str, Condition]:
        """The topics of that channel that do not do as well as it, by instrument."""
        return {name: topic.condition for name, topic in self._topics[channel].items()}

    def withdraw(self, channel: str, instrument: str, cause: TopicCause) -> None:
        """That note does not hold any longer."""
        seen = self._seen.get(channel)
        if seen is not None and (held := seen.notes.get(instrument)) is not None:
            held.pop(cause, None)
            if not held:
                del seen.notes[instrument]

    def saw(self, event: Event) -> None:
        """Data came. Called once per message, so it does as little as possible."""
        try:
            seen = self._seen[event.channel]
        except KeyError:
            return
        seen.events += 1
        seen.last = seen.latest[event.instrument] = event
        if not event.cached or event.lifetime_s:
            seen.fresh += 1
            seen.newest = event

    def clock_was_set_back(self, by_ms: int) -> None:
        """The wall clock was set back: what was stamped before is as old as it was."""
        for name, state in self._states.items():
            self._states[name] = msgspec.structs.replace(state, since_ms=state.since_ms - by_ms)
        for seen in self._seen.values():
            if seen.last is not None and seen.last_ms is not None:
                received_ms = seen.last.received_ms
                seen.set_back = received_ms, received_ms - seen.last_ms + by_ms

    def expect(self, channel: str, stale_after_s: float) -> None:
        """Set how long the channel may be silent."""
        self._stale_after_s[channel] = stale_after_s

    def seen(self, channel: str) -> Seen:
        """What a channel has delivered. Raises: KeyError."""
        return self._seen[channel]

    def connector(self, channel: str) -> StateChange:
        """What the channel's connector reported last. Raises: KeyError."""
        return self._connectors[channel]

    def topics(self, channel: str) -> Mapping[str, TopicState]:
        """The topics of a channel that do not do as well as it. Raises: KeyError."""
        return self._topics[channel]

    def lacking(self, channel: str) -> dict[str, tuple[int | None, str]]:
        """The topics without data: since when (ms since 1970; None: ever), and why. Raises: KeyError."""
        latest = self._seen[channel].latest
        return {
            name: (latest[name].received_ms if name in latest else None, topic.condition.reason)
            for name, topic in self._topics[channel].items()
            if name and topic.condition.state != "live"
        }

    def verdict(self, channel: str, source: Source) -> Verdict | None:
        """That source's verdict on the channel, or None. Raises: KeyError."""
        return self._verdicts[channel].get(source)

    def told(self) -> Mapping[str, ChannelState]:
        """Every channel's state as it was told last, also while this process is cut off."""
        return {name: self.told_of(name) for name in self._states}

    def told_of(self, channel: str) -> ChannelState:
        """One channel's state as it was told last, also while this process is cut off. Raises: KeyError."""
        if (followed := self._followed.get(channel)) is not None:
            return followed
        return msgspec.structs.replace(
            self._states[channel],
            last_event_ms=self._seen[channel].last_ms,
            stale_after_s=self._stale_after_s.get(channel),
        )

    def state(self, channel: str) -> ChannelState:
        """One channel's state. Raises: KeyError."""
        state = self.told_of(channel)
        if self._cut_off is None or state.state not in _OPEN:
            return state
        reason, since_ms = self._cut_off
        return msgspec.structs.replace(state, state="stale", since_ms=since_ms, reason=reason)

    def states(self) -> Mapping[str, ChannelState]:
        """Every channel's state, in the catalogue's order."""
        return {name: self.state(name) for name in self._states}

    def measure(self, samples: Samples, now_ms: int) -> None:
        """Add the state of each channel, and what it has delivered."""
        state = samples.gauge("tickerd_channel_state", "1 for the state that clients are told.", "channel", "state")
        connector = samples.gauge(
            "tickerd_connector_state", "1 for what the connector itself reported last.", "channel", "state"
        )
        age = samples.gauge(
            "tickerd_channel_age_seconds", "Since the newest data of the channel came from its venue.", "channel"
        )
        bound = samples.gauge(
            "tickerd_channel_stale_after_seconds", "How long the channel may be silent just now.", "channel"
        )
        verdict = samples.gauge("tickerd_channel_verdict", "1 where that check has a remark.", "channel", "source")
        events = samples.counter("tickerd_channel_events", "Events of the channel.", "channel")
        fresh = samples.counter("tickerd_channel_fresh_events", "Of these, more than a body's mere repeat.", "channel")
        trouble = samples.gauge(
            "tickerd_topic_trouble",
            "1 for an instrument that does not do as well as its channel: its state and why.",
            *("channel", "instrument", "state", "cause"),
        )
        lacking = samples.gauge(
            "tickerd_channel_topics",
            "Instruments that are in that state while their channel goes on.",
            "channel",
            "state",
        )
        notes = samples.counter(
            "tickerd_topic_notes",
            "What connectors noted of single instruments: rows left out, say.",
            "channel",
            "cause",
        )
        for name, told in self.states().items():
            samples.one_of(state, name, get_args(State), told.state)
            samples.one_of(connector, name, get_args(State), self._connectors[name].state)
            if told.last_event_ms is not None:
                age.add_metric([name], max(0, now_ms - told.last_event_ms) / 1000)
            if told.stale_after_s is not None:
                bound.add_metric([name], told.stale_after_s)
            for source in _SOURCES:
                verdict.add_metric([name, source], source in self._verdicts[name])
            events.add_metric([name], self._seen[name].events)
            fresh.add_metric([name], self._seen[name].fresh)
            for instrument, topic in told.topics.items():
                how = topic.condition
                trouble.add_metric([name, instrument, how.state, how.cause], 1)
            states = Counter(topic.condition.state for topic in told.topics.values())
            for kind in ("stale", "down"):
                lacking.add_metric([name, kind], states[kind])
            for cause in get_args(TopicCause):
                notes.add_metric([name, cause], self._odd[name, cause])


def _combined(
    connector: StateChange,
    verdicts: Mapping[Source, Verdict],
    channel: Channel | None,
    topics: Mapping[str, TopicState],
) -> StateChange:
    """The state that clients are told."""
    if not (verdicts or topics) or connector.state not in _OPEN:
        return connector
    told = [verdicts[source] for source in _SOURCES if source in verdicts]
    stale = any(verdict.state == "stale" for verdict in told)
    if channel is not None and topics:
        # What all of its topics lack, the channel lacks.
        stale = stale or all(
            name in topics and topics[name].condition.state != "live" for name in channel.instruments or (WHOLE_MARKET,)
        )
    reasons = [connector.reason, *(verdict.reason for verdict in told), *_named(topics)]
    return StateChange(
        connector.channel,
        "stale" if stale else connector.state,
        "; ".join(dict.fromkeys(reason for reason in reasons if reason)),
        connector.retry_in_s,
    )


def _named(topics: Mapping[str, TopicState]) -> Iterator[str]:
    """What is wrong with the first of the topics, by name."""
    for instrument, topic in islice(topics.items(), MOST_NAMED):
        yield f"{instrument}: {topic.condition.reason}" if instrument else topic.condition.reason
    if len(topics) > MOST_NAMED:
        yield f"and {len(topics) - MOST_NAMED} more instruments"


def topic_statuses(topics: Mapping[str, TopicState], clock: WallClock) -> dict[str, TopicStatus]:
    """Topics as clients are told of them."""
    return {
        instrument: TopicStatus(
            state=topic.condition.state,
            cause=topic.condition.cause,
            since=clock.iso(topic.since_ms),
            reason=topic.condition.reason,
        )
        for instrument, topic in topics.items()
    }


def status(channel: str, state: ChannelState, clock: WallClock, timestamp: str) -> Status:
    """A channel's state as clients are told it."""
    described = dict(islice(state.topics.items(), MOST_TOPICS))
    return Status(
        timestamp=timestamp,
        channel=channel,
        state=state.state,
        since=clock.iso(state.since_ms),
        reason=state.reason,
        retry_in_s=UNSET if state.retry_in_s is None else round(state.retry_in_s, 3),
        topics=topic_statuses(described, clock) if described else UNSET,
        topics_left_out=len(state.topics) - len(described),
    )
