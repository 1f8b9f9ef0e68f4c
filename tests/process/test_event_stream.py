"""`curl -N` on a real process: a plain HTTP request, and prices at once."""

import http.client
import json
import shutil
import subprocess
import time

import pytest


def test_a_plain_request_shows_prices_at_once(demo_port: int) -> None:
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", demo_port, timeout=10)
    connection.request("GET", "/events?channels=bitcoinprice,ethprice")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    data: list[str] = []
    while len(data) < 8:
        line = answer.readline().decode()
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
    answer.close()
    connection.close()
    messages = [json.loads(each) for each in data]
    assert [message["type"] for message in messages[:4]] == ["welcome", "subscribed", "status", "status"]
    prices = messages[4:]
    assert {message["type"] for message in prices} == {"price_update"}
    assert {message["connector_id"] for message in prices} == {"bitcoinprice", "ethprice"}
    assert time.monotonic() - began_s < 5


def test_curl_shows_the_events_and_the_reason_of_a_refusal(demo_port: int) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    url = f"http://127.0.0.1:{demo_port}/events?channels="
    shown = subprocess.run(
        [curl, "-sN", "--max-time", "1.5", f"{url}bitcoinprice"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    ).stdout
    assert shown.count('data: {"type":"price_update"') >= 2
    refused = subprocess.run(
        [curl, "-sN", f"{url}bitcoinprise"], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    assert json.loads(refused)["code"] == "unknown_channel"
    assert "bitcoinprice" in json.loads(refused)["message"]
