"""The instruments of the soak and the benchmark see what they are to see."""

import time
from pathlib import Path

import trio

from tests.observed import COUNT, LONG_S, StepTimes, TaskCount, forget_steps, steps


async def _works(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


async def _waits() -> None:
    await trio.sleep(0.02)


def test_the_longest_step_is_found_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "steps"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_works, 2 * LONG_S)
            nursery.start_soon(_waits)
        seen = steps(path)
        assert seen.longest_cpu_s >= 2 * LONG_S
        assert seen.longest_s >= 2 * LONG_S
        assert seen.longest_turn_s >= seen.longest_s
        assert seen.cpu_name.endswith("_works")
        assert seen.long_count == 1
        assert seen.count >= 3
        forget_steps(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_waits)
        seen = steps(path)
        assert seen.longest_cpu_s < LONG_S
        assert seen.long_count == 0
        assert not seen.cpu_name.endswith("_works")

    trio.run(main, instruments=[StepTimes(path)])


def test_tasks_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "tasks"

    def count() -> int:
        (number,) = COUNT.unpack(path.read_bytes())
        return int(number)

    async def main() -> None:
        before = count()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_waits)
            nursery.start_soon(_waits)
            await trio.lowlevel.checkpoint()
            assert count() == before + 2
        assert count() == before

    trio.run(main, instruments=[TaskCount(path)])
