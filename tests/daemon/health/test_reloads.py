"""A failed reload is told until a good one comes."""

import trio
import trio.testing

from connectors.metric import Samples
from daemon.health.reloads import Reloads
from daemon.health.status_line import publish_status
from daemon.host.systemd import Notifier


def measured(reloads: Reloads) -> dict[str, float]:
    samples = Samples()
    reloads.measure(samples)
    return {sample.name: sample.value for family in samples for sample in family.samples}


def test_a_failure_is_told_until_a_reload_goes_well() -> None:
    reloads = Reloads(1_000)
    assert (reloads.trouble, reloads.words) == ("", "")
    reloads.failed("server.port: got 0x; allowed: ...")
    assert "the one before it is in force" in reloads.trouble
    assert "server.port" not in reloads.trouble, "anybody may read it"
    assert reloads.words == "the last reload failed: server.port: got 0x; allowed: ..."
    told = measured(reloads)
    assert (told["tickerd_config_reload_failed"], told["tickerd_config_loaded_time_seconds"]) == (1, 1)
    reloads.succeeded(7_000, ["server.port"])
    assert (reloads.trouble, reloads.words) == ("", "a restart is needed for server.port")
    told = measured(reloads)
    assert (told["tickerd_config_reload_failed"], told["tickerd_config_loaded_time_seconds"]) == (0, 7)


class Told(Notifier):
    """Keeps the status lines."""

    is_heard = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)


async def test_the_status_line_begins_with_it(autojump_clock: trio.testing.MockClock) -> None:
    reloads, told = Reloads(0), Told()
    async with trio.open_nursery() as nursery:
        await nursery.start(publish_status, told, lambda: 2, dict, lambda: reloads.words)
        await trio.sleep(1.5)
        reloads.failed("x" * 900)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert told.lines[0] == "serving 2 clients; 0 channels live"
    assert told.lines[-1].startswith("the last reload failed: xxx")
    assert len(told.lines[-1]) == 500
