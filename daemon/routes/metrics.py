"""`GET /metrics`: what the daemon does and how it feels, for Prometheus.

Nothing is measured here. Every component counts for itself, with integers and `connectors.metric`; when somebody
asks, this file reads them. That costs nothing per client: what there is one of per client has been added up before.

Labels are bounded: channels and connectors of the configuration, and codes, causes, states and formats from closed
lists. What a client sent never becomes one, and neither does its address.

The registry is this object's own, so that two daemons in one process do not meet in prometheus_client's global one.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from connectors.base import FAILURE_CAUSES, State
from connectors.metric import Histogram
from connectors.poll.poller import Poller
from connectors.push.feed import Feed
from daemon.fanout.hub import Hub
from daemon.front.front_door import FrontDoor
from daemon.front.request import Request, Response
from daemon.health.board import Board, Source
from daemon.health.watch import Watch
from daemon.host.clock import WallClock
from daemon.host.logs import dropped_count
from daemon.host.usage import process_usage
from daemon.ingest.fleet import Fleet
from daemon.ingest.inbox import Item
from daemon.publish.sequencer import Sequencer
from daemon.sessions.session_counts import CLOSE_CODES
from daemon.sessions.sessions import Sessions
from daemon.tape.archive import Archive
from daemon.tape.gaps import CAUSES, Ledger
from daemon.tape.tape import Tape
from protocol.codes import ErrorCode
from protocol.messages import Format

_TEXT: Final = choose_encoder("")
_OPENMETRICS: Final = choose_encoder("application/openmetrics-text; version=1.0.0")
"""An encoder and its content type. prometheus_client (0.26) is not asked about a client's own header: it fails on a
version that is no number, and repeats it in the answer's head."""

_STATES: Final[tuple[State, ...]] = get_args(State)
_SOURCES: Final[tuple[Source, ...]] = get_args(Source)
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")

_FEED: Final = {
    "connections": "Opening handshakes with the venue that succeeded.",
    "frames": "Messages of any kind that the venue sent.",
    "events": "Events that were made of them.",
    "empty": "Data frames without an event, such as the ticker of a pair that has not traded yet.",
    "ignored": "Well-formed frames that are of no interest.",
    "unreadable": "Frames that are not what the venue documents; they are left out.",
    "switches": "Connections that took over from one that was still there.",
    "duplicates": "Events that another connection had delivered already.",
}


class Metrics(Collector):
    """Reads the components when it is asked."""

    def __init__(
        self,
        *,
        version: str,
        board: Board,
        ledger: Ledger,
        tape: Tape,
        clock: WallClock,
        sequencer: Sequencer,
        hub: Hub,
        sessions: Sessions,
        front_door: FrontDoor,
        fleet: Fleet,
        watch: Watch,
        archive: Archive | None,
        inbox: trio.MemorySendChannel[Item],
    ) -> None:
        """`inbox` is the one that leads to the hub."""
        self._version = version
        self._board = board
        self._ledger = ledger
        self._tape = tape
        self._clock = clock
        self._sequencer = sequencer
        self._hub = hub
        self._sessions = sessions
        self._front_door = front_door
        self._fleet = fleet
        self._watch = watch
        self._archive = archive
        self._inbox = inbox
        self._started_s = time.time()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answer(self, request: Request) -> Response:
        """In the text format, or as OpenMetrics where the client would rather have that. No checkpoint."""
        encode, content_type = _OPENMETRICS if _prefers_openmetrics(request) else _TEXT
        return Response(200, encode(self._registry), content_type)

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now. To be called inside trio."""
        build = {"version": self._version, "python": platform.python_version()}
        yield InfoMetricFamily("tickerd_build", "What runs.", value=build)
        yield from self._channels()
        yield from self._connectors()
        yield from self._hub_and_tape()
        yield from self._clients()
        yield from self._door()
        yield from self._gaps_and_archive()
        yield from self._process()

    def _channels(self) -> Iterator[Metric]:
        state = _gauge("tickerd_channel_state", "1 for the state that clients are told.", "channel", "state")
        connector = _gauge(
            "tickerd_connector_state", "1 for what the connector itself reported last.", "channel", "state"
        )
        age = _gauge(
            "tickerd_channel_age_seconds", "Since the newest data of the channel came from its venue.", "channel"
        )
        bound = _gauge("tickerd_channel_stale_after_seconds", "How long the channel may be silent just now.", "channel")
        verdict = _gauge("tickerd_channel_verdict", "1 where that check has a remark.", "channel", "source")
        events = _counter("tickerd_channel_events", "Events of the channel.", "channel")
        fresh = _counter("tickerd_channel_fresh_events", "Of these, more than a body's mere repeat.", "channel")
        board, now_ms = self._board, self._clock.now_ms()
        for name, told in board.states().items():
            _one_of(state, name, _STATES, told.state)
            _one_of(connector, name, _STATES, board.connector(name).state)
            if told.last_event_ms is not None:
                age.add_metric([name], max(0, now_ms - told.last_event_ms) / 1000)
            if told.stale_after_s is not None:
                bound.add_metric([name], told.stale_after_s)
            for source in _SOURCES:
                verdict.add_metric([name, source], board.verdict(name, source) is not None)
            seen = board.seen(name)
            events.add_metric([name], seen.events)
            fresh.add_metric([name], seen.fresh)
        yield from (state, connector, age, bound, verdict, events, fresh)

    def _connectors(self) -> Iterator[Metric]:
        failures = _counter(
            "tickerd_connector_failures", "How often a connector had to begin anew.", "connector", "cause"
        )
        feed = {name: _counter(f"tickerd_feed_{name}", text, "connector") for name, text in _FEED.items()}
        requests = _counter("tickerd_poll_requests", "Requests to the venue.", "connector")
        repeats = _counter("tickerd_poll_repeats", "Ticks at which the last body was good for once more.", "connector")
        answers = HistogramMetricFamily(
            "tickerd_poll_answer_seconds", "From a request to its answer's last byte.", labels=["connector"]
        )
        used = _gauge("tickerd_poll_budget_used", "What the venue says we have used up of its limit.", "connector")
        limit = _gauge("tickerd_poll_budget_limit", "That limit, in the venue's own unit.", "connector")
        closed = _gauge("tickerd_poll_closed_seconds", "How much longer the venue must be left alone.", "connector")
        for connector in self._fleet.connectors:
            name = connector.name
            counted = self._fleet.failures(name)
            for cause in FAILURE_CAUSES:
                failures.add_metric([name, cause], counted[cause])
            if isinstance(connector, Feed):
                counts = connector.statistics()
                for field, family in feed.items():
                    family.add_metric([name], getattr(counts, field))
            elif isinstance(connector, Poller):
                polled = connector.statistics()
                requests.add_metric([name], polled.requests)
                repeats.add_metric([name], polled.repeats)
                answers.add_metric([name], *_buckets(polled.answers_s))
                closed.add_metric([name], polled.closed_s)
                if polled.budget is not None:
                    used.add_metric([name], polled.budget.used)
                    limit.add_metric([name], polled.budget.limit)
        yield from (failures, *feed.values(), requests, repeats, answers, used, limit, closed)

    def _hub_and_tape(self) -> Iterator[Metric]:
        tape, sequencer, inbox = self._tape, self._sequencer, self._inbox.statistics()
        counts, who = self._hub.counts, self._hub.statistics()
        yield _count("tickerd_events", "Events that went onto the tape.", sequencer.events)
        yield _count(
            "tickerd_events_refused", "Events of no channel, or with a price that is no number.", sequencer.refused
        )
        yield _count("tickerd_passes", "How often the hub wrote to its clients.", counts.passes)
        yield _count("tickerd_deliveries", "Messages of the tape that clients' sockets took.", counts.deliveries)
        yield _count("tickerd_delivered_bytes", "The frames of these deliveries.", counts.delivered_bytes)
        yield _count("tickerd_lagged", "How often the tape's tail overtook a client.", counts.lagged)
        yield _value("tickerd_clients_behind", "Clients that are being brought to the tape's head.", who.behind)
        yield _value("tickerd_groups", "Groups of clients that get the same bytes.", who.groups)
        yield _value("tickerd_inbox_batches", "Sends of connectors that wait for the hub.", inbox.current_buffer_used)
        yield _value("tickerd_inbox_batches_max", "How many may wait.", inbox.max_buffer_size)
        yield _value("tickerd_tape_entries", "Messages on the tape.", len(tape))
        yield _value("tickerd_tape_entries_max", "How many it holds.", tape.max_entries)
        yield _value("tickerd_tape_bytes", "The size of these messages.", tape.size_bytes)
        yield _value("tickerd_tape_bytes_max", "How large they may be together.", tape.max_bytes)
        yield _value("tickerd_tape_position", "seq of the newest message.", tape.head)
        yield _histogram("tickerd_batch_events", "Events that the hub took in one turn.", sequencer.batches)
        yield _histogram("tickerd_turn_seconds", "How long such a turn was at work.", sequencer.passes_s)
        delay = "From a venue's bytes to the last socket of the clients that keep up, per event; no cached ones."
        yield _histogram("tickerd_delivery_delay_seconds", delay, counts.delays_s)

    def _clients(self) -> Iterator[Metric]:
        counts, limits = self._sessions.counts, self._front_door.admission.limits
        clients = _gauge("tickerd_clients", "Clients that are connected, by what they speak.", "format")
        entered = _counter("tickerd_sessions", "Clients that were welcomed.", "format")
        for format in Format:
            clients.add_metric([format.name.lower()], counts.open[format])
            entered.add_metric([format.name.lower()], counts.entered[format])
        yield from (clients, entered)
        yield _value("tickerd_clients_max", "How many clients are let in.", limits.clients)
        yield _count("tickerd_handshakes_failed", "Opening handshakes that clients did not complete.", counts.unopened)
        closes = {str(code or "other"): counts.closes[code] for code in CLOSE_CODES}
        yield _counts("tickerd_closes", "Clients that are gone, by close code.", "code", closes)
        yield _count("tickerd_commands", "Frames that clients sent.", counts.commands)
        errors = {code.value: counts.errors[code] for code in ErrorCode}
        yield _counts("tickerd_command_errors", "Commands that were answered with an error.", "code", errors)

    def _door(self) -> Iterator[Metric]:
        door, counts = self._front_door, self._front_door.statistics()
        yield _value("tickerd_accepting", "1 while clients are let in, 0 during a stop.", door.accepting)
        yield _value("tickerd_connections", "Open connections of any kind.", counts.connections_open)
        yield _value("tickerd_connections_max", "How many there may be.", door.admission.limits.connections)
        yield _count("tickerd_connections_accepted", "Connections since the start.", counts.accepted_count)
        yield _count("tickerd_connections_broken", "Connections that broke or were too slow.", counts.broken_count)
        yield _count("tickerd_requests", "HTTP requests, handshakes included.", counts.requests_count)
        yield _count("tickerd_request_failures", "Requests and connections that failed by a bug.", counts.failed_count)
        refusals = {code.value: door.refusals[code] for code in ErrorCode}
        yield _counts("tickerd_refused", "Requests and connections that were refused.", "code", refusals)

    def _gaps_and_archive(self) -> Iterator[Metric]:
        ledger = self._ledger
        now = ledger.open(self._clock.now_ms())
        yield _counts("tickerd_gaps", "Gaps that the ledger has noted.", "cause", {c: ledger.begun[c] for c in CAUSES})
        lasting = _gauge("tickerd_gaps_open", "Gaps that last.", "cause")
        for cause in CAUSES:
            lasting.add_metric([cause], now[cause])
        yield lasting
        if self._archive is not None:
            counts = self._archive.statistics()
            yield _count("tickerd_archive_stored", "Messages that were written to the tape's file.", counts.stored)
            yield _count("tickerd_archive_unstored", "Messages that left the tape before that.", counts.unstored)
            yield _count("tickerd_archive_failures", "Transactions that could not be carried out.", counts.failures)
            yield _value("tickerd_archive_reserved_position", "The last seq that may be used.", counts.reserved)

    def _process(self) -> Iterator[Metric]:
        lag = "How late the event loop wakes a task, measured several times a second."
        yield _histogram("tickerd_event_loop_lag_seconds", lag, self._watch.lag_s)
        yield _value("tickerd_tasks", "Tasks of trio.", trio.lowlevel.current_statistics().tasks_living)
        yield _count("tickerd_log_lines_dropped", "Lines that the log's reader was too slow for.", dropped_count())
        usage = process_usage()
        yield _count("process_cpu_seconds", "Total user and system CPU time spent in seconds.", usage.cpu_s)
        if usage.resident_bytes is not None:
            yield _value("process_resident_memory_bytes", "Resident memory size in bytes.", usage.resident_bytes)
        if usage.open_files is not None:
            yield _value("process_open_fds", "Number of open file descriptors.", usage.open_files)
        yield _value("process_max_fds", "Maximum number of open file descriptors.", usage.most_files)
        started = "Start time of the process since unix epoch in seconds."
        yield _value("process_start_time_seconds", started, self._started_s)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    """Its samples are called `name` and `_total`."""
    return CounterMetricFamily(name, text, labels=labels)


def _value(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _count(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _counts(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = _counter(name, text, label)
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _one_of(family: GaugeMetricFamily, name: str, values: Iterable[str], held: str) -> None:
    """1 for the value that holds, 0 for each of the others."""
    for value in values:
        family.add_metric([name, value], value == held)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=())
    family.add_metric((), *_buckets(histogram))
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """The buckets as prometheus_client takes them, and the sum."""
    bounds = [*(str(bound) for bound in map(float, histogram.bounds)), "+Inf"]
    return list(zip(bounds, histogram.cumulative(), strict=True)), histogram.sum


def _prefers_openmetrics(request: Request) -> bool:
    """Whether the `Accept` header (RFC 9110 section 12.5.1) has OpenMetrics at least as high as plain text."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in request.tokens("accept"):
        kind, *parameters = (part.strip() for part in item.lower().split(";"))
        if kind in quality:
            found = [float(match[1]) for part in parameters if (match := _QUALITY.fullmatch(part))]
            quality[kind] = max(quality[kind], min(found, default=1.0))
    return quality["application/openmetrics-text"] >= max(quality["text/plain"], 0.001)
