"""An instrument in any script, wherever one is named: commands, URLs, the figures, the venue, the table."""

import json
from urllib.parse import quote

from rich.console import Console

from connectors.venues.binance.polls import venue_symbol
from daemon.commands.terminal.table import Sheet
from protocol.commands import Format
from protocol.messages import PriceUpdate, decode_message
from tests.daemon.front.test_admitted import open_door

NAME = "币安人生/USDT"
CONFIGURATION = f"""
[channels.life]
connector = "okx"
instruments = ["{NAME}"]
"""


async def test_it_is_subscribed_to_and_asked_for_by_its_name() -> None:
    async with open_door(CONFIGURATION) as door:
        async with door.websocket() as client:
            await client.until("welcome")
            await client.say(type="subscribe", channels=["life"], instruments=[NAME], id=1)
            assert (await client.until("subscribed"))["channels"] == ["life"]
            await client.say(type="subscribe", channels=["life"], instruments=["币安/USDT"], id=2)
            error = await client.until("error")
            assert error["code"] == "unknown_instrument"
            assert NAME in error["message"]
        for spelled in (quote(NAME), quote(NAME, safe=""), quote(NAME).lower().replace("usdt", "USDT")):
            snapshot = await door.ask(f"/snapshot/life?instrument={spelled}")
            assert (snapshot.status, json.loads(snapshot.body)["instrument"]) == (200, NAME)
            assert b"200 OK" in await door.head(f"/events?channels=life&instruments={spelled}")
        assert (await door.ask(f"/snapshot/life?instrument={quote('币/USDT')}")).status == 404
        listed = json.loads((await door.ask("/channels")).body)["channels"]
        assert [each["instruments"] for each in listed if each["name"] == "life"] == [[NAME]]
        assert (await door.ask("/metrics")).status == 200
    assert venue_symbol(NAME) == "币安人生USDT"


def test_the_tables_columns_stay_in_line() -> None:
    sheet = Sheet("tickerd", 0.0)
    for seq, instrument in enumerate((NAME, "BTC/USDT"), 1):
        text = json.dumps(
            {"type": "price_update", "connector_id": "life", "exchange": "okx", "instrument": instrument, "price": 1.5}
            | {"timestamp": "2025-12-08T16:30:45.123Z", "seq": seq, "prev_seq": 0, "received_ms": 1, "data": {}}
        )
        message = decode_message(text, Format.JSON)
        assert isinstance(message, PriceUpdate)
        sheet.take(message, 0.0)
    console = Console(width=100, force_terminal=False)
    with console.capture() as drawn:
        console.print(sheet.draw(0.0, 0.0, 10))
    # A character of this script is two cells wide.
    columns = {
        line.index("1.5") + sum(ord(c) > 0x2E80 for c in line) for line in drawn.get().splitlines() if "1.5" in line
    }
    assert len(columns) == 1
