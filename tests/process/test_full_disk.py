"""A real process whose tape is on a disk that is full, or read-only: clients notice nothing, and are told the truth."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon.routes.scraping import Scrape
from tests.process.running import COMMAND, Process, tickerd, wait_ready
from tests.process.small_disk import NoMountError, SmallDisk, small_disk
from tests.process.test_restart import Client, Message, come, gone, topic

ENTRIES = 300
"""Kept on the tape: a few seconds of messages, so that what is not stored is soon lost."""

SOON_S = 10.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of its own; `TICKERD_REQUIRE_MOUNT=1` makes it an error where this machine does not allow that."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path))
        except NoMountError as absent:
            if os.environ.get("TICKERD_REQUIRE_MOUNT"):
                pytest.fail(str(absent))
            pytest.skip(str(absent))
        yield disk


@contextlib.contextmanager
def daemon(config: Path, disk: SmallDisk) -> Iterator[Process]:
    environ = {
        "TICKERD_SERVER__PORT": "0",
        "TICKERD_TAPE__PATH": str(disk.inside / "tape"),
        "TICKERD_TAPE__ENTRIES": str(ENTRIES),
        "TICKERD_CONNECTORS__COINGECKO__PLAN": '"unlimited"',
    }
    with tickerd("run", "--config", str(config), environ=environ, command=(*disk.command, *COMMAND)) as process:
        yield process


def get(port: int, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}")


def reason(port: int) -> str:
    """What `/readyz` says is amiss. Clients must be let in all the while."""
    answer = get(port, "/readyz")
    body = json.loads(answer.content)
    assert (answer.status_code, body["ready"]) == (200, True)
    return str(body.get("reason", ""))


def metric(port: int, name: str) -> float:
    return Scrape.of(get(port, "/metrics").text).value(name)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def takes_more(clients: list[Client], count: int) -> None:
    """Wait until each client has had so many more messages."""
    before = [len(client.data) for client in clients]
    wait(lambda: all(len(client.data) >= had + count for client, had in zip(clients, before, strict=True)))


def chained(client: Client) -> None:
    """Each topic's messages say themselves that none is missing."""
    seen: dict[tuple[str, str], int] = {}
    for message in client.data:
        if topic(message) in seen:
            assert message["prev_seq"] == seen[topic(message)]
        seen[topic(message)] = message["seq"]


def test_a_full_disk_costs_clients_nothing_but_what_a_kill_would_cost_without_one(
    busy_venues: Path, disk: SmallDisk
) -> None:
    everything: list[Client] = []

    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        first = come(process.port, [None] * 3)
        takes_more(first, ENTRIES // 2)
        assert (reason(process.port), metric(process.port, "tickerd_archive_storing")) == ("", 1)
        disk.fill()
        wait(lambda: "disk is full" in reason(process.port))
        takes_more(first, 2 * ENTRIES)
        wait(lambda: metric(process.port, "tickerd_archive_storing") == 0)
        assert metric(process.port, "tickerd_archive_unstored_total") > 0
        gaps = json.loads(get(process.port, "/gaps").content)["gaps"]
        assert [(gap["end"], "disk is full" in gap["reason"]) for gap in gaps if gap["cause"] == "unstored"] == [
            (None, True)
        ]
        process.stop(signal.SIGKILL)
        gone(first)
    everything += first
    assert sum("is not stored" in line for line in process.lines) == 1, "it is said once"

    # Nothing can be reserved: what is sent from now on is of another epoch.
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        second = come(process.port, [client.position for client in first])
        assert {client.subscribed["epoch"] for client in second}.isdisjoint(
            client.subscribed["epoch"] for client in first
        )
        assert "disk is full" in reason(process.port)
        takes_more(second, ENTRIES // 2)
        process.stop(signal.SIGKILL)
        gone(second)
    everything += second
    for client in second:
        assert set(client.subscribed["recovered"].values()) == {False}

    # The file still has the first tape, and nothing of the second.
    disk.free()
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        third = come(process.port, [client.position for client in (*first, *second)])
        takes_more(third, 10)
        for client in third:
            assert set(client.subscribed["recovered"].values()) == {False}
            assert client.subscribed["epoch"] == first[0].subscribed["epoch"]
        disk.fill()
        wait(lambda: "disk is full" in reason(process.port))
        assert process.stop(signal.SIGTERM) == 0
        gone(third)
    everything += third

    # A start in memory, which takes the file up once there is room: from then on it is as ever.
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        fourth = come(process.port, [third[0].position])
        takes_more(fourth, 10)
        disk.free()
        wait(lambda: reason(process.port) == "")
        assert process.stop(signal.SIGTERM) == 0
        gone(fourth)
    everything += fourth
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        fifth = come(process.port, [fourth[0].position])
        takes_more(fifth, 10)
        process.stop(signal.SIGKILL)
        gone(fifth)
    everything += fifth
    assert fifth[0].subscribed["epoch"] == fourth[0].subscribed["epoch"]
    assert set(fifth[0].subscribed["recovered"].values()) == {True}

    by_position: dict[tuple[str, int], Message] = {}
    for client in everything:
        chained(client)
        for message in client.data:
            place = client.subscribed["epoch"], message["seq"]
            assert by_position.setdefault(place, message) == message, "a position was used twice"


def test_a_read_only_disk_holds_up_no_start(busy_venues: Path, disk: SmallDisk) -> None:
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        first = come(process.port, [None])
        takes_more(first, 10)
        assert process.stop(signal.SIGTERM) == 0
        gone(first)
    disk.remount(writable=False)
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        assert "Read-only file system" in reason(process.port)
        second = come(process.port, [first[0].position])
        assert set(second[0].subscribed["recovered"].values()) == {False}
        disk.remount(writable=True)
        wait(lambda: reason(process.port) == "")
        takes_more(second, 10)
        assert process.stop(signal.SIGTERM) == 0
        gone(second)
    with daemon(busy_venues, disk) as process:
        wait_ready(process.port)
        third = come(process.port, [second[0].position])
        assert set(third[0].subscribed["recovered"].values()) == {True}
        causes = [gap["reason"] for gap in json.loads(get(process.port, "/gaps").content)["gaps"]]
        assert any("Read-only file system" in each for each in causes)
        assert sum("the daemon" in each or "clean stop" in each for each in causes) == 1
        process.stop(signal.SIGKILL)
        gone(third)
