"""Every limit that can be configured is reached by a test over a real socket: which one, and those that stand here."""

import re
import socket
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.front import admission
from daemon.front.limits import Limits
from tests.daemon.serving import SOON_S, Gateway, handshake, open_gateway, policy

TESTS = Path(__file__).parents[1]

REACHED = {
    "message_bytes": ("test_bad_inputs.py", "test_a_bad_frame_is_told_by_its_close_code"),
    "commands_per_s": ("test_closing.py", "test_a_flood_is_answered_then_limited_then_closed"),
    "commands_burst": ("test_floods.py", "test_a_flood_is_closed_with_the_limit_that_it_broke_and_nobody_else_notices"),
    "channels_per_command": ("test_bad_inputs.py", "test_a_bad_command_is_told_why_and_the_session_goes_on"),
    "clients": ("test_front_door.py", "test_no_more_clients_than_there_are_places"),
    "clients_per_address": ("test_front_door.py", "test_one_address_may_not_take_all_places"),
    "requests_per_s": ("test_rates.py", "test_a_refusal_says_when_to_come_back_and_a_page_may_read_it"),
    "requests_burst": ("test_rates.py", "test_pipelined_requests_pay_the_rate_and_end_with_it"),
    "handshakes_per_s": ("test_rates.py", "test_clients_that_come_and_go_are_counted"),
    "handshakes_burst": ("test_rates.py", "test_clients_that_come_and_go_are_counted"),
    "tests_per_s": ("test_rates.py", "test_who_may_send_test_messages_may_not_send_many_nor_long_ones"),
    "tests_burst": ("test_rates.py", "test_who_may_send_test_messages_may_not_send_many_nor_long_ones"),
    "test_bytes": ("test_rates.py", "test_who_may_send_test_messages_may_not_send_many_nor_long_ones"),
    "handshake_s": ("test_bad_inputs.py", "test_who_is_slow_is_waited_for_so_long_and_no_longer"),
    "ping_every_s": ("test_closing.py", "test_the_server_pings_when_it_is_time_and_not_before"),
    "silent_after_s": ("test_closing.py", "test_a_silent_client_is_closed_and_one_that_answers_is_not"),
    "write_deadline_s": ("test_closing.py", "test_a_slow_consumer_is_closed_and_the_others_keep_receiving"),
    "errors_in_a_row": ("test_closing.py", "test_garbage_in_a_row_is_closed_and_one_command_in_between_is_not"),
    "errors_per_s": ("test_floods.py", "test_who_is_over_the_rate_is_closed_though_some_of_it_is_carried_out"),
    "errors_burst": ("test_floods.py", "test_who_is_over_the_rate_is_closed_though_some_of_it_is_carried_out"),
    "head_bytes": ("test_bad_inputs.py", "test_a_bad_request_is_told_why"),
    "body_bytes": ("test_bad_inputs.py", "test_a_bad_request_is_told_why"),
    "keep_alive_s": ("test_bad_inputs.py", "test_who_is_slow_is_waited_for_so_long_and_no_longer"),
    "grace_s": ("test_closing.py", "test_a_client_that_never_answers_holds_the_stop_no_longer_than_the_grace"),
}


@pytest.mark.parametrize("limit", Limits.__struct_fields__)
def test_each_limit_is_reached_by_a_test(limit: str) -> None:
    file, name = REACHED[limit]
    [path] = TESTS.rglob(file)
    assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), f"{file} has no {name}"


def restrict(gateway: Gateway, **limits: float) -> None:
    changed = msgspec.structs.replace(gateway.door.admission.limits, **limits)
    gateway.door.admission.policy = policy(changed)


async def test_who_does_not_take_his_answers_is_waited_for_so_long() -> None:
    """Thousands of requests, pipelined, and nothing is read: the daemon holds no answers for it."""
    async with open_gateway() as gateway:
        restrict(gateway, write_deadline_s=0.2)
        stream = await gateway.dial(receive_buffer=4096)
        with trio.fail_after(SOON_S), pytest.raises(trio.BrokenResourceError):
            await _ask_for_ever(stream)
        await gateway.wait(lambda: gateway.door.statistics().connections_open == 0)
        assert gateway.door.statistics().broken_count == 1
        await stream.aclose()


async def test_over_the_limit_so_many_are_told_and_the_others_are_closed_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_REFUSALS_AT_ONCE", 3)
    async with open_gateway() as gateway:
        gateway.door.admission.policy = policy(connections=2)
        streams = []
        for count in range(1, 9):
            streams.append(await gateway.dial())
            await gateway.wait(partial(_accepted, gateway, count))
        # The first two are let in; those behind them hold on to their connection until they have gone.
        answers = [await _all_of(stream) for stream in streams[2:]]
        assert [answer[:12] for answer in answers[:3]] == [b"HTTP/1.1 503"] * 3
        assert all(b"all 2 connections are taken" in answer for answer in answers[:3])
        assert answers[3:] == [b""] * 3
        for stream in streams:
            await stream.aclose()
        await gateway.wait(lambda: gateway.door.statistics().connections_open == 0)


async def _ask_for_ever(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * 500)


def _accepted(gateway: Gateway, count: int) -> bool:
    return gateway.door.statistics().accepted_count == count


async def _all_of(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.move_on_after(SOON_S):
        try:
            while data := await stream.receive_some(4096):
                received += data
        except trio.BrokenResourceError:
            pass
    return received


async def test_half_of_a_connection_is_no_connection() -> None:
    """Thousands of handshakes that are begun, half-closed and left: none keeps its place."""
    async with open_gateway() as gateway:
        for _ in range(50):
            stream = await gateway.dial()
            await stream.send_all(handshake())
            await stream.send_eof()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            stream.socket.close()
        await gateway.wait(lambda: gateway.door.statistics().connections_open == 0 and not len(gateway.sessions))
