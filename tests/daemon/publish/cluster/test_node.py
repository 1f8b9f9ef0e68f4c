"""Nodes share one tape: whatever dies, stands still or is cut off, each client has everything once, or is told."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.cuts import open_cuts
from tests.daemon.publish.cluster.rig import Rigged, leading, open_rig, until
from tests.daemon.serving import certificate
from tests.engine import PASSWORD, RedisServer, free_port
from tests.process.fenced import only


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "engine").start()
    yield server
    server.kill()


async def test_all_nodes_have_the_tape_of_the_one_that_leads(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one"), await rig.node("two", role="serve")
        leader = await leading(one)
        rig.live(leader)
        for _ in range(50):
            rig.publish(leader, 3)
            await trio.sleep(0.002)
        await until(lambda: one.witness.numbers == two.witness.numbers == list(range(1, 151)))
        assert one.replica.tape.epoch == two.replica.tape.epoch
        assert one.replica.board.states() == two.replica.board.states()
        assert two.replica.board.state("a").state == "live"
        # Who comes later has all of it, too.
        three = await rig.node("three", role="serve")
        await until(lambda: three.head == one.head)
        for tape in (two.replica.tape, three.replica.tape):
            assert [e.payload for e in tape.between(0, tape.head)] == [
                e.payload for e in one.replica.tape.between(0, one.head)
            ]
        assert three.replica.ledger.gaps(0) == one.replica.ledger.gaps(0)


async def test_a_killed_leader_is_followed_within_the_lease_and_chains_go_on(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        rig.live(one)
        two, three = await rig.node("two"), await rig.node("three", role="serve")
        rig.publish(one, 10)
        await until(lambda: all(node.witness.numbers == list(range(1, 11)) for node in (one, two, three)))
        before = one.head
        one.scope.cancel()
        began_s = trio.current_time()
        await leading(two)
        assert trio.current_time() - began_s < 4
        rig.publish(two, 5)
        await until(lambda: three.witness.numbers == list(range(1, 16)) == two.witness.numbers)
        assert three.replica.tape.skips == two.replica.tape.skips
        assert three.replica.tape.skips[0][0] == before
        assert three.witness.sent_away == ["the tape of the cluster begins here"]
        causes = [gap.cause for gap in three.replica.ledger.gaps(three.clock.now_ms())]
        assert "cluster" in causes
        # It comes back, and follows.
        again = await rig.node("one")
        await until(lambda: again.head == two.head)
        assert not again.node.leads


async def test_a_leader_that_stops_hands_over_at_once_and_without_a_skip(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one", lease_s=60.0)
        await leading(one)
        two = await rig.node("two", lease_s=60.0)
        rig.publish(one, 10)
        await until(lambda: len(two.witness.numbers) == len(one.witness.numbers) == 10)
        await one.node.stop()
        with trio.fail_after(15):
            await leading(two)
        rig.publish(two, 3)
        await until(lambda: two.witness.numbers == list(range(1, 14)) == one.witness.numbers)
        assert two.replica.tape.skips == []


async def test_a_leader_that_stood_still_is_fenced_when_it_wakes(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two = await rig.node("two")
        rig.publish(one, 2)
        await until(lambda: two.witness.numbers == one.witness.numbers == [1, 2])
        # As if it slept: its lease has gone to another one while it still thinks that it leads.
        assert b"OK" in engine.ask("SET", "tickerd:{main}:leader", "two zzz", "PX", "1500")
        rig.publish(one, 1)
        await until(lambda: not one.node.leads)
        assert one.witness.numbers == two.witness.numbers == [1, 2], "nobody is shown what the engine does not have"
        leader = await leading(one, two)
        rig.publish(leader, 1)
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 4])


async def test_an_engine_that_is_away_is_told_and_everything_goes_on_when_it_is_back(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two = await rig.node("two", role="serve")
        rig.publish(one, 2)
        await until(lambda: two.witness.numbers == one.witness.numbers == [1, 2])
        engine.pause()
        rig.publish(one, 2)
        await until(lambda: all("".join(node.cut_off[-1:]).startswith("the engine") for node in (one, two)))
        assert one.cut_off[-1].startswith("the engine that carries the tape has not answered for 2 s")
        assert one.witness.numbers == [1, 2]
        engine.resume()
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3, 4])
        await until(lambda: one.cut_off[-1] == two.cut_off[-1] == "")
        assert one.node.leads
        rig.publish(one, 1)
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3, 4, 5])
        assert len(one.witness.sent_away) == len(two.witness.sent_away) == 1
        await until(lambda: any(gap.cause == "cluster" for gap in two.replica.ledger.gaps(two.clock.now_ms())))


async def test_an_engine_that_comes_back_empty_is_given_the_tape_again(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two, three = await rig.node("two"), await rig.node("three", role="serve")
        rig.publish(one, 20)
        await until(lambda: all(len(node.witness.numbers) == 20 for node in (one, two, three)))
        epoch = one.replica.tape.epoch
        engine.kill()
        rig.publish(one, 2)
        await trio.sleep(0.5)
        engine.start()
        await until(lambda: one.witness.numbers == two.witness.numbers == three.witness.numbers == list(range(1, 23)))
        assert one.node.leads
        assert {node.replica.tape.epoch for node in (one, two, three)} == {epoch}
        assert not any(node.witness.told for node in (one, two, three))
        late = await rig.node("late", role="serve")
        await until(lambda: late.head == one.head)
        assert len(late.replica.tape) == len(one.replica.tape)


async def test_an_engine_that_comes_back_empty_is_noticed_also_where_nothing_is_written(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        rig.publish(one, 3)
        await until(lambda: one.witness.numbers == [1, 2, 3])
        engine.kill()
        engine.start()
        assert one.node.writer is not None
        one.node.writer._settled_s = -math.inf  # as if the time for the next state had come
        late = await rig.node("late", role="serve")
        await until(lambda: late.witness.numbers == [1, 2, 3])


async def test_who_had_more_entries_than_are_written_again_still_hears_of_the_next_gap(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        leader = await leading(one)
        two = await rig.node("two", role="serve")
        rig.publish(leader, 1)
        assert one.node.leading is not None
        ledger, outlet = one.node.leading.ledger, one.node.leading.outlet
        for number in range(4):  # an entry each, and none with a position of its own
            ledger.note("lagged", "", 0, messages=1, reason=f"slow {number}")
            outlet.tell()
            await until(lambda: outlet.next == one.node.writer._number)  # type: ignore[union-attr]
        await until(lambda: two.reader.last == one.reader.last and two.reader.last is not None)
        engine.kill()
        engine.start()
        for reason in ("found by this one", "and another one"):
            ledger.record("cluster", "", 1, 2, reason=reason)
            outlet.tell()
            await until(lambda reason=reason: reason in [gap.reason for gap in two.replica.ledger.gaps(0)])  # type: ignore[misc]


async def test_an_engine_that_was_away_for_longer_than_parts_are_kept_is_given_the_tape_anew(
    engine: RedisServer,
) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two = await rig.node("two", role="serve")
        rig.publish(one, 5)
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3, 4, 5])
        assert one.node.leading is not None
        one.node.leading.outlet._kept_bytes = 1000
        engine.pause()
        for _ in range(20):
            rig.publish(one, 2)
        one.node.leading.ledger.record("unstored", "", 1, 2, reason="it must reach everybody")
        rig.live(one)
        rig.publish(one, 1)
        await until(lambda: all("".join(node.cut_off[-1:]).startswith("the engine") for node in (one, two)))
        engine.resume()
        await until(lambda: one.witness.numbers == two.witness.numbers == list(range(1, 47)))
        late = await rig.node("late", role="serve")
        await until(lambda: late.witness.numbers == list(range(1, 47)))
        for node in (two, late):
            await until(lambda node=node: node.replica.board.told()["a"].state == "live")  # type: ignore[misc]
            assert "it must reach everybody" in [gap.reason for gap in node.replica.ledger.gaps(0)]
        assert one.node.leads
        assert not one.witness.told
        assert not two.witness.told


async def test_an_engine_that_comes_back_empty_after_the_leader_died_has_the_tape_of_another_node(
    engine: RedisServer,
) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two, three = await rig.node("two"), await rig.node("three", role="serve")
        rig.publish(one, 20)
        await until(lambda: all(len(node.witness.numbers) == 20 for node in (one, two, three)))
        epoch = one.replica.tape.epoch
        one.scope.cancel()
        engine.kill()
        engine.start()
        await leading(two)
        rig.publish(two, 2)
        await until(lambda: two.witness.numbers == three.witness.numbers == list(range(1, 23)))
        assert two.replica.tape.epoch == three.replica.tape.epoch == epoch
        assert not two.witness.told
        assert not three.witness.told


async def test_if_nobody_has_the_tape_another_one_begins_and_clients_are_told(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two = await rig.node("two", role="serve")
        rig.publish(one, 20)
        await until(lambda: len(two.witness.numbers) == len(one.witness.numbers) == 20)
        one.scope.cancel()
        engine.kill()
        engine.start()
        fresh = await rig.node("fresh")
        await leading(fresh)
        rig.publish(fresh, 2)
        await until(lambda: two.replica.tape.epoch == fresh.replica.tape.epoch)
        rig.publish(fresh, 1)
        await until(lambda: two.witness.numbers[-1] == 23)
        assert two.replica.tape.epoch == fresh.replica.tape.epoch
        [why] = two.witness.told
        assert "is not this tape's" in why
        assert two.witness.sent_away[1:] == ["another tape was begun in the engine"]


async def replicated(primary: RedisServer, replica: RedisServer) -> None:
    """Wait until the replica has all that the primary has."""
    replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
    await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))


async def test_what_a_failover_lost_is_written_again_by_a_leader_that_lives(
    tmp_path: Path, engine: RedisServer
) -> None:
    other = RedisServer(tmp_path / "other").start()
    try:
        async with open_cuts(engine.port) as way, open_rig(way.url) as rig:
            one = await rig.node("one")
            await leading(one)
            two = await rig.node("two", role="serve")
            rig.publish(one, 5)
            await until(lambda: len(one.witness.numbers) == len(two.witness.numbers) == 5)
            await replicated(engine, other)
            other.ask("REPLICAOF", "NO", "ONE")
            for _ in range(3):
                rig.publish(one, 5)
                await trio.sleep(0.02)
            await until(lambda: len(one.witness.numbers) == len(two.witness.numbers) == 20)
            way.lead_to(other.port)
            engine.kill()
            rig.publish(one, 1)
            await until(lambda: one.witness.numbers == two.witness.numbers == list(range(1, 22)))
            assert one.node.leads
            assert one.witness.sent_away == two.witness.sent_away == ["the tape of the cluster begins here"]
            late = await rig.node("late", role="serve")
            await until(lambda: late.witness.numbers == list(range(1, 22)))
    finally:
        other.kill()


async def test_what_a_failover_lost_with_the_leader_is_told_to_those_who_had_it(
    tmp_path: Path, engine: RedisServer
) -> None:
    other = RedisServer(tmp_path / "other").start()
    try:
        async with open_cuts(engine.port) as way, open_rig(way.url) as rig:
            one = await rig.node("one")
            await leading(one)
            two, three = await rig.node("two"), await rig.node("three", role="serve")
            rig.publish(one, 5)
            await until(lambda: len(one.witness.numbers) == len(two.witness.numbers) == len(three.witness.numbers) == 5)
            await replicated(engine, other)
            other.ask("REPLICAOF", "NO", "ONE")
            rig.publish(one, 5)
            await until(lambda: len(three.witness.numbers) == len(two.witness.numbers) == 10)
            one.scope.cancel()
            way.lead_to(other.port)
            engine.kill()
            await leading(two)
            rig.publish(two, 1)
            await until(lambda: two.witness.told and three.witness.told)
            rig.publish(two, 1)
            await until(lambda: two.witness.numbers[-1] == three.witness.numbers[-1] == 12)
            for node in (two, three):
                assert node.witness.numbers[:10] == list(range(1, 11))
                [why] = node.witness.told
                assert "beyond this tape's head" in why or "was sent, and lost when another node took over" in why
            # A client that had the lost ones, and comes to a node that never did.
            late = await rig.node("late", role="serve")
            await until(lambda: late.head == two.head)
            late.witness.position = two.replica.tape.epoch, late.replica.tape.skips[0][0] + 3
            late.witness.come_back()
            assert "was sent, and lost when another node took over" in late.witness.told[-1]
    finally:
        other.kill()


async def test_a_node_that_is_cut_off_is_told_so_and_catches_up(engine: RedisServer) -> None:
    async with open_cuts(engine.port) as way, open_rig(engine.url) as rig:
        one = await rig.node("one")
        await leading(one)
        two = await rig.node("two", role="serve", url=way.url)
        rig.publish(one, 1)
        await until(lambda: two.witness.numbers == [1])
        way.swallows = True
        rig.publish(one, 3)
        await until(lambda: "".join(two.cut_off[-1:]).startswith("the engine that carries the tape has not answered"))
        assert "".join(one.cut_off[-1:]) == ""
        assert two.peers.state == "cut off"
        way.swallows = False
        way.cut()
        await until(lambda: two.witness.numbers == [1, 2, 3, 4] and two.cut_off[-1] == "")
        assert len(two.witness.sent_away) == 1


async def test_a_leader_that_is_cut_off_is_replaced_and_nothing_that_clients_saw_is_lost(engine: RedisServer) -> None:
    async with open_cuts(engine.port) as way, open_rig(engine.url) as rig:
        one = await rig.node("one", url=way.url)
        await leading(one)
        two = await rig.node("two")
        rig.publish(one, 3)
        await until(lambda: two.witness.numbers == one.witness.numbers == [1, 2, 3])
        way.swallows = True
        rig.publish(one, 2)
        await leading(two)
        rig.publish(two, 1)
        way.swallows = False
        way.cut()
        await until(lambda: two.witness.numbers == one.witness.numbers and two.witness.numbers[-1] == 6)
        await until(lambda: not one.node.leads)
        assert two.witness.numbers in ([1, 2, 3, 6], [1, 2, 3, 4, 5, 6])
        assert not one.witness.told


async def test_a_node_slower_than_the_stream_begins_anew_and_its_clients_are_told(engine: RedisServer) -> None:
    async with open_cuts(engine.port) as way, open_rig(engine.url) as rig:
        one = await rig.node("one", stream_bytes=4096, entries=20)
        await leading(one)
        two = await rig.node("two", role="serve", url=way.url, entries=20)
        rig.publish(one, 2)
        await until(lambda: two.witness.numbers == [1, 2])
        way.swallows = True
        way.cut()
        for _ in range(40):
            rig.publish(one, 5)
            await trio.sleep(0.01)
        await until(lambda: int(engine.ask("XLEN", "tickerd:{main}:tape").strip(b":\r\n")) < 30)
        way.swallows = False
        way.cut()
        await until(lambda: two.head == one.head)
        assert "the engine has let go of what came after seq" in two.witness.sent_away[-1]
        [why] = two.witness.told
        assert "is before this tape's tail" in why
        late = await rig.node("late", role="serve", entries=20)
        await until(lambda: late.head == one.head)
        counts = late.replica.tape.counts(frozenset({("a", "X/U")}))
        assert counts == one.replica.tape.counts(frozenset({("a", "X/U")})), "counts of what is gone stay exact"


async def test_a_node_with_a_thin_line_to_the_engine_reads_the_whole_tape_all_the_same(engine: RedisServer) -> None:
    async with open_cuts(engine.port) as way, open_rig(engine.url) as rig:
        one = await rig.node("one", entries=50_000)
        await leading(one)
        for _ in range(30):
            rig.publish(one, 1000)
            await trio.sleep(0.01)
        await until(lambda: len(one.witness.numbers) == 30_000)
        way.bytes_per_s = 1_500_000  # all of it takes longer than a question may
        two = await rig.node("two", role="serve", url=way.url, entries=50_000)
        await until(lambda: two.head == one.head, 60)
        # And so does one that was cut off for a while.
        way.swallows = True
        for _ in range(30):
            rig.publish(one, 1000)
            await trio.sleep(0.01)
        way.swallows = False
        way.cut()
        await until(lambda: two.head == one.head, 60)
        assert len(two.witness.sent_away) == 1


async def test_two_nodes_of_one_name_are_found(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("same"), await rig.node("same")
        await until(lambda: one.peers.remark and two.peers.remark)
        assert one.peers.remark == "another node is called same too: give each a name of its own, by [cluster] node"


def lagged(node: Rigged) -> list[tuple[int, int, str]]:
    """The gaps of that cause in its ledger."""
    gaps = node.replica.ledger.gaps(node.clock.now_ms())
    return [(gap.count, gap.messages, gap.reason) for gap in gaps if gap.cause == "lagged"]


async def test_what_is_noted_at_clients_goes_to_the_ledger_of_all(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one"), await rig.node("two", role="serve")
        await leading(one)
        await until(lambda: two.reader.begun and one.reader.begun)
        two.replica.ledger.note("lagged", "", 0, messages=7, reason="slow")
        two.replica.ledger.note("lagged", "", 0, messages=1)
        two.peers.broadcast_test("hello")
        await until(lambda: lagged(one) and lagged(two))
        assert lagged(one) == lagged(two) == [(2, 8, "slow")]
        await until(lambda: two.replica.tape.payload("!", "!notice"))
        assert b"hello" in (two.replica.tape.payload("!", "!notice") or b"")


async def test_the_nodes_are_told_with_what_each_does(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one"), await rig.node("two", role="serve")
        await leading(one)
        rig.publish(one, 3)
        await until(lambda: two.peers.leader == "one" and len(two.peers.nodes()) == len(one.peers.nodes()) == 2)
        await until(lambda: {node.state for node in two.peers.nodes()} == {"leads", "follows"})
        assert two.peers.clients() == 2
        assert two.peers.engine().answers
        assert two.peers.engine().version.startswith("Redis 7")
        two.scope.cancel()
        await until(lambda: [node.state for node in one.peers.nodes()] == ["leads", "gone"])
        assert one.peers.clients() == 1


async def test_an_engine_without_memory_is_told_and_nobody_is_shown_what_it_does_not_have(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one"), await rig.node("two", role="serve")
        await leading(one)
        rig.publish(one, 2)
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2])
        engine.ask("CONFIG", "SET", "maxmemory", "1")
        rig.publish(one, 2)
        await until(lambda: "has no memory left" in "".join(one.cut_off[-1:]))
        await until(lambda: "".join(two.cut_off[-1:]))
        assert one.witness.numbers == two.witness.numbers == [1, 2]
        engine.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3, 4])
        await until(lambda: one.cut_off[-1] == two.cut_off[-1] == "")
        assert one.node.leads


async def test_what_the_user_in_the_engine_may_not_do_is_told_and_tried_again(engine: RedisServer) -> None:
    words = only("systemd/DEPLOYING.md", "## On several machines", "acl").replace("PASSWORD", PASSWORD).split()
    assert b"OK" in engine.ask(*words, "-xadd")
    url = f"redis://tickerd@127.0.0.1:{engine.port}"
    async with open_rig(url) as rig:
        one = await rig.node("one", password=PASSWORD)
        await until(lambda: "does not permit what is needed" in "".join(one.cut_off[-1:]) + one.engine.trouble)
        assert not one.node.leads
        engine.ask("ACL", "SETUSER", "tickerd", "+xadd")
        await leading(one)
        rig.publish(one, 1)
        await until(lambda: one.witness.numbers == [1] and one.cut_off[-1:] == [""])


async def test_by_tls_the_engine_is_who_its_certificate_says(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    tls = free_port()
    options = ("--tls-port", str(tls), "--tls-cert-file", str(pem), "--tls-key-file", str(key))
    engine = RedisServer(tmp_path / "engine", *options, "--tls-auth-clients", "no").start()
    try:
        async with open_rig(f"rediss://localhost:{tls}") as rig:
            one, two = await rig.node("one", ca=str(pem)), await rig.node("two", role="serve")
            await leading(one)
            rig.publish(one, 3)
            await until(lambda: one.witness.numbers == [1, 2, 3])
            # Nothing that the machine trusts has signed it.
            await until(lambda: "cannot be reached by TLS" in two.engine.trouble)
            assert not two.reader.begun
    finally:
        engine.kill()


async def test_a_leader_that_does_not_run_is_noticed_before_its_lease_ends(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one", lease_s=60.0), await rig.node("two", role="serve")
        await leading(one)
        rig.publish(one, 1)
        await until(lambda: two.witness.numbers == [1] and two.peers.leader == "one")
        one.scope.cancel()
        await until(lambda: "node one, which takes data in, has not been heard of" in "".join(two.cut_off[-1:]))


async def test_entries_that_too_few_replicas_have_are_counted_and_shown_all_the_same(
    tmp_path: Path, engine: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    other = RedisServer(tmp_path / "other").start()
    try:
        await replicated(engine, other)
        async with open_rig(engine.url) as rig:
            one = await rig.node("one", wait_replicas=1)
            await leading(one)
            rig.publish(one, 1)
            await until(lambda: one.witness.numbers == [1])
            assert not one.engine.short
            other.kill()
            rig.publish(one, 1)
            await until(lambda: one.witness.numbers == [1, 2] and one.engine.short)
            rig.publish(one, 1)
            await until(lambda: one.witness.numbers == [1, 2, 3] and one.engine.short > 1)
            assert [text for text in caplog.messages if "replicas" in text] == [
                "too few replicas of the engine have an entry in time: wait_replicas = 1"
            ]
            assert one.node.leads
    finally:
        other.kill()


async def test_an_entry_of_another_version_stops_a_node_with_a_reason(engine: RedisServer) -> None:
    async with open_rig(engine.url) as rig:
        one, two = await rig.node("one"), await rig.node("two", role="serve")
        await leading(one)
        rig.publish(one, 1)
        await until(lambda: two.witness.numbers == [1])
        engine.ask("XADD", "tickerd:{main}:tape", "99-0", "v", "2")
        await until(lambda: "entry 99-0 has version 2 of the format" in "".join(two.cut_off[-1:]))


async def test_by_sentinel_a_failover_is_followed(tmp_path: Path, engine: RedisServer) -> None:
    other, sentinel = RedisServer(tmp_path / "other").start(), None
    try:
        await replicated(engine, other)
        config = tmp_path / "sentinel.conf"
        sentinel = RedisServer(tmp_path / "sentinel", program="redis-sentinel")
        config.write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\ndir {tmp_path}\n"
            f"sentinel monitor market 127.0.0.1 {engine.port} 1\n"
            "sentinel down-after-milliseconds market 1000\nsentinel failover-timeout market 5000\n"
        )
        sentinel.start_with(str(config))
        await until(lambda: b"slaves=1" in sentinel.ask("INFO", "sentinel"))
        async with open_rig(f"redis+sentinel://127.0.0.1:{sentinel.port}/market") as rig:
            one, two = await rig.node("one"), await rig.node("two", role="serve")
            await leading(one)
            rig.publish(one, 3)
            await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3])
            engine.kill()
            rig.publish(one, 2)
            await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3, 4, 5], 40)
            assert not two.witness.told
    finally:
        for server in filter(None, (other, sentinel)):
            server.kill()


async def test_a_cluster_of_engines_carries_the_tape(tmp_path: Path) -> None:
    engine = RedisServer(tmp_path / "cluster", "--cluster-enabled", "yes").start()
    try:
        engine.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: b"cluster_state:ok" in engine.ask("CLUSTER", "INFO"))
        async with open_rig(f"redis+cluster://127.0.0.1:{engine.port}") as rig:
            one, two = await rig.node("one"), await rig.node("two", role="serve")
            await leading(one)
            rig.publish(one, 3)
            await until(lambda: one.witness.numbers == two.witness.numbers == [1, 2, 3])
    finally:
        engine.kill()
