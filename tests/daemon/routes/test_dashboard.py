"""The alert rules and the dashboard in systemd/ ask for what a daemon really says.

Every expression is held against the scrape of a daemon with simulated venues and a tape on disk: metrics, labels, and
the values of labels that are from closed lists.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, Metric, generate_latest

from connectors.metric import Samples
from daemon.health.board import Board
from daemon.publish.cluster.writer import Leading, Writer
from daemon.publish.outlet import Outlet
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from tests.daemon.fanout.sink import CATALOGUE
from tests.daemon.publish.cluster.rig import Rigged
from tests.daemon.routes.scraping import Scrape, full_scrape

SYSTEMD = Path(__file__).resolve().parents[3] / "systemd"
RULES = (SYSTEMD / "tickerd-alerts.yml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((SYSTEMD / "tickerd-dashboard.json").read_text(encoding="utf-8"))

ADDED = {"instance", "job"}
"""The labels that Prometheus adds to what it scrapes."""

WIDTH = 24
"""Columns of a Grafana dashboard."""

RULE = re.compile(
    r"""      - alert: (?P<name>Tickerd[A-Za-z]+)
        expr: (?P<expr>[^\n]+)
(?:        for: (?P<for>[1-9][0-9]*[smh])
)?        labels:
          severity: (?P<severity>critical|warning)
        annotations:
          summary: "(?P<summary>[^"\n]+)"
          description: "(?P<description>[^"\n]+)"
"""
)
"""One rule, written as all of them are. Values in double quotes have no backslash, others none of YAML's signs."""


def rules() -> list[dict[str, str]]:
    """All rules. Fails where the file has anything else: then it might not be what YAML makes of it."""
    head, _, body = RULES.partition("\ngroups:\n  - name: tickerd\n    rules:\n")
    assert all(line.startswith("#") for line in head.splitlines() if line)
    found = [*RULE.finditer(body)]
    assert RULE.sub("", body).strip() == "", "not a rule"
    return [match.groupdict(default="") for match in found]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """Each with what it belongs to."""
    asked = [(rule["name"], rule["expr"]) for rule in rules()]
    return asked + [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    scrape = trio.run(full_scrape, tmp_path_factory.mktemp("tape"))
    scrape |= trio.run(clustered)
    return scrape


async def clustered() -> Scrape:
    """What a node of a cluster says beside that, one that leads and has not found its engine yet."""
    node = Rigged("redis://127.0.0.1:1", "one", CATALOGUE, {}, 10)
    tape, board, ledger = Tape(10, 10_000), Board(CATALOGUE, 0), Ledger()
    leading = Leading(tape, board, ledger, Outlet(tape, board, ledger), "token", "one")
    node.node.writer = Writer(node.engine, leading, lease_s=5, stream_bytes=1000, acknowledged=node.reader.feed)
    samples = Samples()
    node.peers.measure(samples)
    registry = CollectorRegistry()
    registry.register(Told(samples))
    return Scrape.of(generate_latest(registry).decode())


class Told:
    """Samples as `prometheus_client` asks for them."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        return self._samples


def mistakes(expr: str, scrape: Scrape) -> Iterator[str]:
    """What an expression asks for that no daemon says."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    said = scrape.names() | {"process_open_fds"}  # older kernels do not say it
    for name in set(re.findall(r"\b(?:tickerd|process)_[a-z_]+", bare)) - said:
        yield f"no metric {name}"
    for name, matchers in re.findall(r"\b((?:tickerd|process)_[a-z_]+)\{([^}]*)\}", expr):
        held = [*scrape.labels_of(name)]
        for label, sign, value in re.findall(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"', matchers):
            if label in ADDED:
                continue
            values = {labels[label] for labels in held if label in labels}
            if not values:
                yield f"{name} has no label {label}"
            values |= {""} if any(label not in labels for labels in held) else set()  # as Prometheus sees it
            yield from (
                f"{name} has no {label} {each}"
                for each in (value.split("|") if "~" in sign else [value])
                if values and each not in values
            )
    known = {label for _, labels in scrape for label, _ in labels} | ADDED
    for names in re.findall(r"\b(?:by|on|without|ignoring|group_left) \(([^)]*)\)", bare):
        yield from (f"no label {label}" for label in re.split(r", *", names) if label not in known)
    for inner in re.findall(r"\b(?:rate|increase)\(([a-z_]+)", bare):
        if not inner.endswith(("_total", "_bucket", "_sum", "_count")):
            yield f"{inner} is no counter"


def test_every_expression_asks_for_what_is_said(scrape: Scrape) -> None:
    wrong = {f"{what}: {mistake}" for what, expr in expressions() for mistake in mistakes(expr, scrape)}
    assert wrong == set()


@pytest.mark.parametrize(
    ("expr", "mistake"),
    [
        ("rate(tickerd_event_total[5m])", "no metric tickerd_event_total"),
        ('tickerd_channel_state{state="dead"} == 1', "tickerd_channel_state has no state dead"),
        ('tickerd_channel_state{state=~"live|dead"} == 1', "tickerd_channel_state has no state dead"),
        ('tickerd_channel_state{code="1"} == 1', "tickerd_channel_state has no label code"),
        ("sum by (venue) (tickerd_clients)", "no label venue"),
        ("rate(tickerd_clients[5m])", "tickerd_clients is no counter"),
    ],
)
def test_a_mistake_in_an_expression_is_found(scrape: Scrape, expr: str, mistake: str) -> None:
    assert mistake in [*mistakes(expr, scrape)]


def test_every_metric_is_shown_or_watched(scrape: Scrape) -> None:
    asked = " ".join(expr for _, expr in expressions())
    shown = set(re.findall(r"\b(?:tickerd|process)_[a-z_]+", asked))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scrape.names()}
    left_out = families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert left_out == {
        *("tickerd_accepting", "tickerd_archive_reserved_position", "tickerd_channel_fresh_events_total"),
        *("tickerd_connections", "tickerd_connections_max", "tickerd_feed_empty_total"),
        *("tickerd_feed_events_total", "tickerd_feed_ignored_total", "tickerd_passes_total", "tickerd_tape_position"),
        *("tickerd_config_loaded_time_seconds", "tickerd_record_removed_total"),
    }


def test_the_rules_cover_what_an_operator_must_know() -> None:
    names = [rule["name"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert {
        *("TickerdChannelStale", "TickerdChannelDown", "TickerdRestartLoop", "TickerdClientsLagging"),
        *("TickerdBudgetExhausted", "TickerdHubSilent", "TickerdEventLoopLag", "TickerdFull", "TickerdNearlyFull"),
        *(
            "TickerdGaps",
            "TickerdArchiveFailing",
            "TickerdInstrumentMissing",
            "TickerdRowsLeftOut",
            "TickerdReloadFailed",
        ),
    } <= set(names)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["name"])
def test_a_rule_is_plain_yaml(rule: dict[str, str]) -> None:
    assert not re.search(r": |:$| #|^[\[{&*!|>'\"%@`?-]", rule["expr"]), "YAML would read it as something else"
    assert rule["expr"].count("(") == rule["expr"].count(")")
    for text in (rule["summary"], rule["description"]):
        assert "\\" not in text
        assert text.count("{{") == text.count("}}")
    assert rule["description"].endswith(".")
    # What holds only for a while is asked of a range; anything else has to last before somebody is called.
    assert rule["for"] or "[" in rule["expr"]


def test_the_dashboard_has_its_rows_and_a_choice_of_source() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Venues", "Fan-out", "Clients", "Process", "Cluster (nodes that share a tape)"]
    assert DASHBOARD["schemaVersion"] >= 39
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_unit_and_asks_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFG"[: len(panel["targets"])]]
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        matched = re.findall(r"\b(?:tickerd|process)_[a-z_]+(\{[^}]*)?", target["expr"])
        assert all('instance=~"$instance"' in matchers for matchers in matched), "it would add up all daemons"


def test_panels_do_not_overlap_and_leave_no_hole() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken.get((x, y))}"
                taken[x, y] = panel["title"]
    assert len(taken) == WIDTH * (max(y for _, y in taken) + 1)
