"""`GET /metrics`: the daemon's metrics, for Prometheus.

They are collected at most once a second, however often and in whatever format they are requested: collecting all of
them costs as much as ten plain requests. `Last-Modified` gives the time of collection.

This file measures only the process itself. Every component keeps its own counts, and adds them to each collection
(`connectors.metric`); this file writes them out.

Each `Metrics` has its own registry, so that two daemons in one process do not share prometheus_client's global one.
"""

from __future__ import annotations

import email.utils
import math
import platform
import re
import time
from collections.abc import Callable, Iterator
from typing import Final

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from connectors.metric import Samples
from daemon.front.request import Headers, Request, Response
from daemon.host.logs import dropped_count
from daemon.host.usage import process_usage

_TEXT: Final = choose_encoder("")
_OPENMETRICS: Final = choose_encoder("application/openmetrics-text; version=1.0.0")
"""An encoder and its content type. A client's own header is not passed to prometheus_client (0.26): it fails on a
version that is not a number, and repeats it in the answer's head."""

FRESH_S: Final = 1.0
"""How long the same answer is given again."""

_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


class Metrics(Collector):
    """Collects the components' metrics for each request."""

    def __init__(self, version: str) -> None:
        """`version`: the daemon's version."""
        self._version = version
        self._components: list[Callable[[Samples], None]] = []
        self._started_s = time.time()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._made_s = -math.inf
        self._made: list[Metric] = []
        self._texts: dict[str, bytes] = {}
        self._headers: Headers = ()

    def include(self, *components: Callable[[Samples], None]) -> None:
        """Add these components; each is called to add its metrics."""
        self._components += components

    def answer(self, request: Request) -> Response:
        """Answer in the text format, or as OpenMetrics if the client prefers that. No checkpoint."""
        return self.scrape(openmetrics=prefers_openmetrics(request))

    def scrape(self, *, openmetrics: bool) -> Response:
        """The same, in that format."""
        encode, content_type = _OPENMETRICS if openmetrics else _TEXT
        now_s = trio.current_time()
        if now_s - self._made_s >= FRESH_S:
            self._made_s, self._made = now_s, list(self._measured())
            self._texts.clear()
            self._headers = (("Last-Modified", email.utils.formatdate(usegmt=True)),)
        text = self._texts.get(content_type)
        if text is None:
            text = self._texts[content_type] = encode(self._registry)
        return Response(200, text, content_type, self._headers)

    def describe(self) -> Iterator[Metric]:
        """Describe nothing in advance: `collect` yields everything."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, as last collected."""
        yield from self._made

    def _measured(self) -> Iterator[Metric]:
        """All current metrics. Call this inside trio."""
        build = {"version": self._version, "python": platform.python_version()}
        yield InfoMetricFamily("tickerd_build", "What runs.", value=build)
        samples = Samples()
        # What the process itself uses comes first: a worker's has its label, and belongs to the same families.
        measure_process(self._started_s, samples)
        for measure in self._components:
            measure(samples)
        yield from samples


def measure_process(started_s: float, samples: Samples) -> None:
    """Add what this process uses; `started_s`: when it started, seconds since 1970. Call this inside trio."""
    samples.value("tickerd_tasks", "Tasks of trio.", trio.lowlevel.current_statistics().tasks_living)
    dropped = "Lines that the log's reader was too slow for."
    samples.count("tickerd_log_lines_dropped", dropped, dropped_count())
    usage = process_usage()
    samples.count("process_cpu_seconds", "Total user and system CPU time spent in seconds.", usage.cpu_s)
    if usage.resident_bytes is not None:
        samples.value("process_resident_memory_bytes", "Resident memory size in bytes.", usage.resident_bytes)
    if usage.open_files is not None:
        samples.value("process_open_fds", "Number of open file descriptors.", usage.open_files)
    samples.value("process_max_fds", "Maximum number of open file descriptors.", usage.most_files)
    started = "Start time of the process since unix epoch in seconds."
    samples.value("process_start_time_seconds", started, started_s)


def prefers_openmetrics(request: Request) -> bool:
    """Whether the `Accept` header (RFC 9110 section 12.5.1) ranks OpenMetrics at least as high as plain text."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in request.tokens("accept"):
        kind, *parameters = (part.strip() for part in item.lower().split(";"))
        if kind in quality:
            found = [float(match[1]) for part in parameters if (match := _QUALITY.fullmatch(part))]
            quality[kind] = max(quality[kind], min(found, default=1.0))
    return quality["application/openmetrics-text"] >= max(quality["text/plain"], 0.001)
