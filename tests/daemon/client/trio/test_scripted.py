"""`daemon.client` against a daemon of which the test says each word: goodbyes, hangs, refusals, broken promises."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from daemon.client import (
    Client,
    CommandRefused,
    Gap,
    Lagged,
    Lost,
    NotUnderstood,
    PriceUpdate,
    Received,
    Reconnecting,
    Resumed,
    ServerRefused,
    ServerUnavailable,
    Subscription,
    Test,
    connect,
)
from tests.daemon.client.scripted_daemon import Scripted, Talk, open_scripted
from tests.daemon.serving import SOON_S


@asynccontextmanager
async def _connected(
    *, heartbeat_s: float = 60, retry_s: float = 0.01, token: str = ""
) -> AsyncIterator[tuple[Scripted, Talk, Client]]:
    """A scripted daemon, its first connection, and a client that has had its welcome there."""
    async with open_scripted() as scripted, trio.open_nursery() as nursery:

        async def greet(*, task_status: trio.TaskStatus[Talk]) -> None:
            talk = await scripted.talk()
            task_status.started(talk)
            await talk.welcome(heartbeat_s=heartbeat_s)

        talk: list[Talk] = []

        async def accept() -> None:
            talk.append(await nursery.start(greet))

        nursery.start_soon(accept)
        async with connect(scripted.url, token=token, timeout_s=1, retry_base_s=retry_s, retry_cap_s=retry_s) as client:
            yield scripted, talk[0], client


class _Reader:
    """Iterates in a task of its own, so that the test can play the daemon meanwhile."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.error: Exception | None = None
        self._give, self._take = trio.open_memory_channel[Received](100)

    async def run(self) -> None:
        try:
            async for received in self.subscription:
                await self._give.send(received)
        except (CommandRefused, ServerRefused, NotUnderstood) as error:
            self.error = error
        self._give.close()

    async def next(self) -> Received:
        with trio.fail_after(SOON_S):
            return await self._take.receive()

    async def seqs(self, count: int) -> list[int]:
        """Of so many data messages in a row."""
        found = []
        for _ in range(count):
            received = await self.next()
            assert isinstance(received, PriceUpdate), received
            found.append(received.seq)
        return found

    async def failure(self) -> Exception:
        """Read on to the error that ends it."""
        with trio.fail_after(SOON_S):
            async for _ in self._take:
                continue
        assert self.error is not None
        return self.error


@asynccontextmanager
async def _reading(
    *channels: str, heartbeat_s: float = 60, retry_s: float = 0.01, **options: object
) -> AsyncIterator[tuple[Scripted, Talk, _Reader]]:
    """The same, with a subscription that is being read."""
    async with _connected(heartbeat_s=heartbeat_s, retry_s=retry_s) as (scripted, talk, client):
        reader = _Reader(client.subscribe(*channels, **options))  # type: ignore[arg-type] # each test's own
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.run)
            yield scripted, talk, reader
            await reader.subscription.aclose()


async def test_a_goodbye_says_when_to_come_back_and_each_channel_goes_on_where_it_was() -> None:
    async with _reading("bitcoinprice", "ethprice", retry_s=30) as (scripted, talk, reader):
        [command] = await talk.commands()
        assert (command["channels"], "since" in command) == (["bitcoinprice", "ethprice"], False)
        await talk.subscribed(command)
        await talk.pong()
        for seq, prev_seq, channel in ((11, 7, "bitcoinprice"), (12, 5, "ethprice"), (15, 11, "bitcoinprice")):
            await talk.price(seq, prev_seq, channel)
        assert await reader.seqs(3) == [11, 12, 15]
        await talk.say(type="goodbye", code=1001, reason="stopping", retry_after_s=0.3)
        at_s = trio.current_time()
        await talk.close(1001, "stopping")
        lost = await reader.next()
        assert lost == Reconnecting("closed with 1001 stopping", 1001, 0.3)
        talk = await scripted.talk()
        assert 0.25 <= trio.current_time() - at_s < SOON_S
        await talk.welcome(seq=40)
        commands = await talk.commands()
        assert [(command["channels"], command["since"]) for command in commands] == [
            (["bitcoinprice"], {"epoch": "first", "seq": 15}),
            (["ethprice"], {"epoch": "first", "seq": 12}),
        ]
        for command in commands:
            await talk.subscribed(command, seq=40, recovered=dict.fromkeys(command["channels"], True))
        await talk.price(20, 15)
        await talk.pong()
        assert await reader.seqs(1) == [20]
        assert isinstance(await reader.next(), Resumed)


async def test_a_channel_that_has_been_silent_is_resumed_from_where_it_was_subscribed() -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        [command] = await talk.commands()
        await talk.subscribed(command, seq=10)
        await talk.pong()
        await talk.close(4001)
        await reader.next()
        talk = await scripted.talk()
        await talk.welcome(seq=13)
        [command] = await talk.commands()
        assert command["since"] == {"epoch": "first", "seq": 10}


async def test_a_snapshot_that_may_not_have_come_is_asked_for_again() -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        [command] = await talk.commands()
        await talk.subscribed(command, seq=10)
        await talk.close(4000)
        assert isinstance(await reader.next(), Reconnecting)
        talk = await scripted.talk()
        await talk.welcome(seq=13)
        [command] = await talk.commands()
        assert "since" not in command
        await talk.subscribed(command, seq=13)
        await talk.price(12, 9)
        await talk.pong()
        assert await reader.seqs(1) == [12]


async def test_doubles_are_dropped_and_what_nobody_announced_is_called_a_gap() -> None:
    async with _reading("bitcoinprice") as (_, talk, reader):
        [command] = await talk.commands()
        await talk.subscribed(command, seq=10)
        for seq, prev_seq in ((9, 3), (9, 3), (11, 9), (9, 3), (20, 15)):
            await talk.price(seq, prev_seq)
        assert await reader.seqs(2) == [9, 11]
        assert await reader.next() == Gap("bitcoinprice", "BTC/USDT", 11, 20)
        assert await reader.seqs(1) == [20]
        await talk.say(type="lagged", missed=9, from_seq=21, to_seq=30)
        await talk.price(30, 28)
        assert isinstance(await reader.next(), Lagged)
        assert await reader.seqs(1) == [30]
        # An instrument that had no message when the subscription began.
        await talk.price(34, 33, instrument="ETH/USDT")
        assert await reader.next() == Gap("bitcoinprice", "ETH/USDT", 10, 34)
        assert await reader.seqs(1) == [34]


@pytest.mark.parametrize("epoch", ["first", "second"])
async def test_what_is_lost_is_told_before_what_is_left_and_nothing_comes_twice(epoch: str) -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        [command] = await talk.commands()
        await talk.subscribed(command, seq=100)
        await talk.pong()
        await talk.price(101, 100)
        assert await reader.seqs(1) == [101]
        await talk.close(4000)
        await reader.next()
        talk = await scripted.talk()
        head = 300 if epoch == "first" else 5
        await talk.welcome(seq=head, epoch=epoch)
        [command] = await talk.commands()
        said = {"recovered": {"bitcoinprice": False}, "missed": {"bitcoinprice": 7}, "reason": "too long ago"}
        await talk.subscribed(command, seq=head, epoch=epoch, **said)
        if epoch == "first":
            await talk.price(101, 100)
        await talk.price(head - 1, head - 2)
        await talk.pong()
        assert await reader.next() == Lost(("bitcoinprice",), {"bitcoinprice": 7}, "too long ago")
        assert await reader.seqs(1) == [head - 1]
        resumed = await reader.next()
        assert isinstance(resumed, Resumed)
        assert (resumed.restarted, resumed.lost) == (epoch == "second", ("bitcoinprice",))


async def test_missed_heartbeats_end_a_connection_that_looks_open() -> None:
    async with _reading("bitcoinprice", heartbeat_s=0.4) as (scripted, talk, reader):
        await talk.commands()
        for _ in range(4):  # pings alone keep it
            await trio.sleep(0.3)
            await talk.websocket.ping()
        lost = await reader.next()
        assert isinstance(lost, Reconnecting)
        assert lost.reason == "nothing was heard for 1 s, not even a ping"
        await (await scripted.talk()).welcome()


@pytest.mark.parametrize("code", [1003, 1007, 1008, 1009])
async def test_a_close_code_that_says_not_to_come_back_is_an_error(code: int) -> None:
    async with _reading("bitcoinprice") as (_, talk, reader):
        await talk.commands()
        await talk.close(code, "go away")
        failure = await reader.failure()
        assert isinstance(failure, ServerRefused)
        assert (str(failure), failure.code) == (f"closed with {code} go away", code)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, 4001])
async def test_after_any_other_it_comes_back(code: int) -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        await talk.commands()
        await talk.close(code)
        lost = await reader.next()
        assert isinstance(lost, Reconnecting)
        assert lost.code == code
        await scripted.talk()


ERROR = b'{"type":"error","code":"unauthorized","message":"no such token","timestamp":"2025-12-08T16:30:45.123Z"}'


async def test_a_refused_handshake_says_why() -> None:
    async with open_scripted() as scripted:
        scripted.refuse = (401, [], ERROR)
        with pytest.raises(ServerRefused, match="answered with HTTP 401: no such token") as refused:
            async with connect(scripted.url):
                pass
        assert refused.value.code == 401
        scripted.refuse = (503, [(b"Retry-After", b"7")], b"busy")
        with pytest.raises(ServerUnavailable, match="answered with HTTP 503") as unavailable:
            async with connect(scripted.url):
                pass
        assert unavailable.value.retry_after_s == 7


async def test_later_a_full_daemon_is_waited_for_and_a_token_that_counts_no_more_ends_it() -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        await talk.commands()
        scripted.refuse = (503, [(b"Retry-After", b"1")], b"")
        await talk.close(1013)
        waits = [await reader.next(), await reader.next()]
        assert [each.retry_in_s >= 1 for each in waits if isinstance(each, Reconnecting)] == [False, True]
        scripted.refuse = (401, [], ERROR)
        assert isinstance(await reader.failure(), ServerRefused)


FORBIDDEN = ERROR.replace(b"unauthorized", b"forbidden")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, b"<html>") for status in (200, 301, 400, 401, 403, 404, 407, 408, 421, 425, 429, 451)),
        *((status, b"<html>") for status in (500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530, 599)),
        (404, b""),
        (403, b'{"message":"Forbidden"}'),
        *((status, ERROR) for status in (408, 425, 429, 500, 503)),
    ],
)
async def test_what_something_in_between_says_is_waited_out(status: int, body: bytes) -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        await talk.subscribed((await talk.commands())[0])
        scripted.refuse = (status, [], body)
        await talk.close(1001)
        reasons = [await reader.next() for _ in range(3)]
        assert all(isinstance(each, Reconnecting) for each in reasons), reasons
        assert isinstance(reasons[1], Reconnecting)
        assert f"answered with HTTP {status}" in reasons[1].reason
        scripted.refuse = None
        talk = await scripted.talk()
        await talk.welcome()
        assert (await talk.commands())[0]["channels"] == ["bitcoinprice"]


@pytest.mark.parametrize(("status", "body"), [(401, ERROR), (403, FORBIDDEN), (404, ERROR), (400, ERROR), (426, ERROR)])
async def test_the_daemons_own_word_is_final(status: int, body: bytes) -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        await talk.commands()
        scripted.refuse = (status, [], body)
        await talk.close(1001)
        failure = await reader.failure()
        assert isinstance(failure, ServerRefused)
        assert failure.code == status


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [(b"7", 7), (b"Fri, 31 Dec 1999 23:59:59 GMT", 0), (b"999999", 3600), (b"soon", None), (b"-1", None)],
)
async def test_retry_after_is_seconds_or_a_date(said: bytes, wait_s: float | None) -> None:
    async with open_scripted() as scripted:
        scripted.refuse = (429, [(b"Retry-After", said)], b"")
        with pytest.raises(ServerUnavailable) as unavailable:
            async with connect(scripted.url):
                pass
        assert unavailable.value.retry_after_s == wait_s


@pytest.mark.parametrize("related", [True, False])
async def test_an_error_of_a_code_that_is_not_known_is_passed_over(related: bool) -> None:
    async with _reading("bitcoinprice") as (_, talk, reader):
        [command] = await talk.commands()
        more = {"id": command["id"]} if related else {}
        await talk.say(type="error", code="brand_new", message="of a later version", channels=["x"], **more)
        await talk.subscribed(command)
        await talk.pong()
        await talk.say(type="error", code="brand_new_too", message="of a later version")
        await talk.price(11, 7)
        assert await reader.seqs(1) == [11]


async def test_one_that_is_all_that_a_command_is_answered_ends_the_subscription() -> None:
    async with _reading("bitcoinprice") as (_, talk, reader):
        [command] = await talk.commands()
        await talk.say(type="error", code="brand_new", message="no longer", id=command["id"])
        await talk.pong()
        failure = await reader.failure()
        assert isinstance(failure, CommandRefused)
        assert (failure.code, failure.message) == ("brand_new", "no longer")
        assert not failure.code.is_known


async def test_the_token_is_sent_as_a_header() -> None:
    async with _connected(token="s3cret") as (_, talk, _):
        assert talk.headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (None, ServerUnavailable, "did not answer the opening handshake in 0.3 s"),
        (b"", ServerUnavailable, "hung up during the opening handshake"),
        (b"220 mail.example.com ready\r\n\r\n", NotUnderstood, "does not speak the websocket protocol"),
    ],
)
async def test_whoever_is_no_daemon_is_given_up(answer: bytes | None, error: type[Exception], said: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            elif answer:
                await stream.send_all(answer)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with trio.fail_after(SOON_S), pytest.raises(error, match=said):
            async with connect(f"127.0.0.1:{port}", timeout_s=0.3):
                pass
        nursery.cancel_scope.cancel()


async def test_where_nobody_listens_the_address_is_named() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(ServerUnavailable, match=rf"127.0.0.1:{port}: no connection .*refused"):
        async with connect(f"127.0.0.1:{port}"):
            pass


async def test_a_websocket_that_sends_no_welcome_is_not_understood() -> None:
    async with open_scripted() as scripted, trio.open_nursery() as nursery:

        async def speak() -> None:
            await (await scripted.talk()).say(type="test", message="hello")

        nursery.start_soon(speak)
        with pytest.raises(NotUnderstood, match="no welcome"):
            async with connect(scripted.url):
                pass


async def test_types_of_a_later_version_are_passed_over_and_broken_messages_are_not() -> None:
    async with _reading("bitcoinprice") as (_, talk, reader):
        await talk.commands()
        await talk.say(type="weather", connector_id="bitcoinprice")
        await talk.say(type="test", message="hello")
        assert isinstance(await reader.next(), Test)
        await talk.say(type="price_update", connector_id=7)
        assert isinstance(await reader.failure(), NotUnderstood)


async def test_all_channels_are_resumed_by_name_and_one_may_lack_an_instrument() -> None:
    async with _reading("*", instruments=["BTC/USDT", "ETH/USDT"]) as (scripted, talk, reader):
        [command] = await talk.commands()
        assert command["channels"] == ["*"]
        await talk.subscribed({**command, "channels": ["bitcoinprice", "ethprice"]})
        await talk.pong()
        await talk.price(11, 3)
        assert await reader.seqs(1) == [11]
        await talk.close(4001)
        await reader.next()
        talk = await scripted.talk()
        await talk.welcome()
        commands = await talk.commands()
        assert [command["channels"] for command in commands] == [["bitcoinprice"], ["ethprice"]]
        assert all(command["instruments"] == ["BTC/USDT", "ETH/USDT"] for command in commands)
        for command in commands:
            await talk.say(type="error", code="unknown_instrument", message="ETH/USDT", id=command["id"])
            await talk.subscribed(command, recovered=dict.fromkeys(command["channels"], True))
        await talk.pong()
        assert isinstance(await reader.next(), Resumed)
        await talk.say(type="error", code="rate_limited", message="too fast")
        failure = await reader.failure()
        assert isinstance(failure, CommandRefused)
        assert failure.message == "too fast"


async def test_all_channels_at_an_interval_are_those_that_an_interval_may_thin() -> None:
    async with _reading("*", interval_ms=1000) as (_, talk, reader):
        [command] = await talk.commands()
        await talk.say(type="error", code="interval_refused", message="x", id=command["id"], channels=["trades"])
        await talk.subscribed({**command, "channels": ["bitcoinprice"]})
        await talk.pong()
        await talk.price(11, 3)
        assert await reader.seqs(1) == [11]


async def test_a_channel_that_has_to_come_whole_is_refused_at_an_interval() -> None:
    async with _reading("trades", "bitcoinprice", interval_ms=1000) as (_, talk, reader):
        [command] = await talk.commands()
        await talk.say(type="error", code="interval_refused", message="x", id=command["id"], channels=["trades"])
        failure = await reader.failure()
        assert isinstance(failure, CommandRefused)
        assert failure.channels == ("trades",)


async def test_what_came_at_an_interval_is_not_resumed_but_begun_again_without_doubles() -> None:
    async with _reading("bitcoinprice", interval_ms=1000, snapshot=False) as (scripted, talk, reader):
        [command] = await talk.commands()
        assert (command["interval_ms"], command["snapshot"]) == (1000, False)
        await talk.subscribed(command, seq=10)
        await talk.pong()
        await talk.price(15, 12)
        assert await reader.seqs(1) == [15]
        await talk.close(4000)
        await reader.next()
        talk = await scripted.talk()
        await talk.welcome(seq=15)
        [command] = await talk.commands()
        assert ("since" in command, command.get("snapshot", True)) == (False, True)
        await talk.subscribed(command, seq=16)
        await talk.price(15, 12)
        await talk.price(9, 2, instrument="ETH/USDT")  # older than the subscription, which wanted no snapshot
        await talk.price(16, 15)
        await talk.pong()
        assert await reader.seqs(1) == [16]


async def test_a_ping_without_an_answer_is_given_up() -> None:
    async with _connected() as (_, _, client):
        with trio.fail_after(SOON_S), pytest.raises(ServerUnavailable, match="not answered in 1 s"):
            await client.ping()


async def test_a_change_of_options_that_is_cancelled_holds_on_the_next_connection() -> None:
    async with _reading("bitcoinprice") as (scripted, talk, reader):
        [command] = await talk.commands()
        await talk.subscribed(command)
        await talk.pong()
        await talk.price(11, 9)
        assert await reader.seqs(1) == [11]
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.subscription.change(interval_ms=500)
        assert scope.cancelled_caught
        assert isinstance(await reader.next(), Reconnecting)
        talk = await scripted.talk()
        await talk.welcome(seq=40)
        [command] = await talk.commands()
        assert (command["channels"], command["interval_ms"]) == (["bitcoinprice"], 500)
