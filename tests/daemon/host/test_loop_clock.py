"""The event loop's clock over clocks that stand still, jump and are set; and a trio program that runs by it."""

from collections.abc import Callable

import pytest
import trio

from daemon.host.loop_clock import Clocks, LoopClock, Pause, passed_s, sleep_until_passed


class Fake(Clocks):
    """Clocks that a test sets."""

    def __init__(self) -> None:
        self.mono, self.boot, self.since_1970, self.worked = 100.0, 5_000.0, 1.7e9, 1.0

    def monotonic(self) -> float:
        return self.mono

    def boottime(self) -> float:
        return self.boot

    def wall(self) -> float:
        return self.since_1970

    def work(self) -> float:
        return self.worked

    def passes(self, seconds: float, *, worked: float = 0.0) -> None:
        """Everything goes on; whether the process runs is not for a clock to say."""
        self.mono += seconds
        self.worked += worked
        self.suspended(seconds)

    def suspended(self, seconds: float) -> None:
        """The machine sleeps."""
        self.boot += seconds
        self.since_1970 += seconds


class Watched:
    """A clock, what it told, and the moves of an event loop."""

    def __init__(self) -> None:
        self.clocks = Fake()
        self.clock = LoopClock(self.clocks)
        self.pauses: list[Pause] = []
        self.steps: list[float] = []
        self.clock.on_pause, self.clock.on_step = self.pauses.append, self.steps.append
        self.clock.start_clock()

    def sleep(self, seconds: float, woken_after_s: float | None = None) -> float:
        """The loop waits for its next deadline; it is woken by that, or later, or sooner by an event."""
        wanted_s = self.clock.deadline_to_sleep_time(self.clock.current_time() + seconds)
        assert wanted_s == pytest.approx(seconds)
        self.clocks.passes(seconds if woken_after_s is None else woken_after_s)
        return self.clock.current_time()


def test_time_in_which_the_loop_ran_or_slept_as_it_meant_to_counts() -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    watched.sleep(0.25)
    watched.sleep(300.0)
    watched.sleep(300.0, woken_after_s=120.0)
    for _ in range(50):
        watched.clocks.passes(0.2)
        watched.clock.current_time()
    assert watched.clock.current_time() - began_s == pytest.approx(0.25 + 300 + 120 + 10)
    assert watched.pauses == []
    assert watched.steps == []


def test_time_in_which_the_process_was_stopped_does_not() -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    assert watched.sleep(0.25, woken_after_s=45.25) - began_s == pytest.approx(0.25)
    assert watched.sleep(0.25) - began_s == pytest.approx(0.5)
    [pause] = watched.pauses
    assert pause.seconds == pytest.approx(45.0)
    assert "did not run for 45.0 s" in pause.reason
    assert watched.clock.passed_s() == pytest.approx(5_045.5), "but it has passed"


def test_it_does_not_count_either_in_the_midst_of_a_task_after_a_short_sleep() -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    watched.sleep(30.0, woken_after_s=0.01)
    watched.clocks.passes(45.0)
    assert watched.clock.current_time() - began_s == pytest.approx(0.01)
    assert [pause.seconds for pause in watched.pauses] == [pytest.approx(45.0)]


def test_a_loop_that_waits_for_an_event_alone_is_not_late() -> None:
    watched = Watched()
    watched.clock.deadline_to_sleep_time(float("inf"))
    watched.clocks.passes(3_600.0)
    watched.clock.current_time()
    assert watched.pauses == []


def test_hard_work_is_told_from_a_stop() -> None:
    watched = Watched()
    watched.clocks.passes(6.0, worked=5.5)
    watched.clock.current_time()
    [pause] = watched.pauses
    assert "too busy for 6.0 s" in pause.reason


@pytest.mark.parametrize("late_s", [0.3, 0.9])
def test_being_a_little_late_counts(late_s: float) -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    assert watched.sleep(0.25, woken_after_s=0.25 + late_s) - began_s == pytest.approx(0.25 + late_s)
    assert watched.pauses == []


def test_being_late_for_a_second_is_forgiven_without_a_word() -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    assert watched.sleep(0.25, woken_after_s=1.75) - began_s == pytest.approx(0.25)
    assert watched.pauses == []


def test_a_suspend_is_a_pause_though_the_clock_of_deadlines_stood_still_too() -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    watched.clocks.suspended(7_200.0)
    assert watched.sleep(0.25) - began_s == pytest.approx(0.25)
    assert [pause.seconds for pause in watched.pauses] == [pytest.approx(7_200.0)]
    assert watched.steps == [], "the wall clock was not set: it went on, as it should"


@pytest.mark.parametrize("step_s", [-86_400.0, -3_600.0, -6.0, 6.0, 3_600.0, 86_400.0])
def test_a_step_of_the_wall_clock_is_told_and_moves_no_deadline(step_s: float) -> None:
    watched = Watched()
    began_s = watched.clock.current_time()
    watched.clocks.since_1970 += step_s
    assert watched.sleep(0.25) - began_s == pytest.approx(0.25)
    watched.sleep(0.25)
    assert watched.pauses == []
    assert watched.steps == [pytest.approx(step_s)]


@pytest.mark.parametrize("step_s", [-3.0, 3.0])
def test_what_a_time_service_does_every_day_is_no_step(step_s: float) -> None:
    watched = Watched()
    watched.clocks.since_1970 += step_s
    watched.sleep(0.25)
    assert watched.steps == []


def test_what_was_before_the_loop_began_to_run_is_no_pause() -> None:
    watched = Watched()
    watched.clocks.passes(60.0)
    watched.clock.start_clock()
    watched.sleep(0.25)
    assert watched.pauses == []


def test_who_is_told_while_the_loop_goes_to_sleep_is_woken_at_once() -> None:
    watched = Watched()
    watched.clocks.passes(45.0)
    assert watched.clock.deadline_to_sleep_time(watched.clock.current_time() + 9) == pytest.approx(9)
    watched.clocks.passes(45.0)
    assert watched.clock.deadline_to_sleep_time(1e9) == 0.0


class Machine(Fake):
    """Clocks that go on by themselves, a millisecond at each reading, and stand still or jump when told to."""

    def monotonic(self) -> float:
        self.passes(0.001)
        return self.mono


def run(main: Callable[[Machine, LoopClock], object], machine: Machine) -> None:
    async def begin() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, LoopClock)
        await main(machine, clock)  # type: ignore[misc]

    trio.run(begin, clock=LoopClock(machine))


def test_deadlines_of_a_program_that_stood_still_go_on_where_they_were() -> None:
    """In a real event loop: a limit of 2 s does not pass in a pause of a minute, and passes after it."""

    async def main(machine: Machine, clock: LoopClock) -> None:
        woken = trio.Event()
        clock.on_pause = lambda _: woken.set()
        with trio.move_on_after(2.0) as limit:
            began_s = passed_s()
            machine.passes(60.0)
            await woken.wait()
            assert not limit.cancelled_caught
            await sleep_until_passed(began_s + 30.0)
            assert 60 <= passed_s() - began_s < 62, "what has passed has passed"
            while True:
                await trio.lowlevel.checkpoint()
        assert limit.cancelled_caught

    run(main, Machine())


async def test_under_another_clock_it_is_trios_time(autojump_clock: trio.testing.MockClock) -> None:
    began_s = passed_s()
    assert began_s == trio.current_time()
    await sleep_until_passed(began_s + 7.25)
    assert trio.current_time() == began_s + 7.25


def test_asking_for_the_time_costs_little() -> None:
    """It is asked for at every read and write: no clock but one is read each time."""
    reads = {"boottime": 0, "monotonic": 0}

    class Counted(Fake):
        def monotonic(self) -> float:
            reads["monotonic"] += 1
            return super().monotonic()

        def boottime(self) -> float:
            reads["boottime"] += 1
            return super().boottime()

    clocks = Counted()
    clock = LoopClock(clocks)
    for _ in range(1000):
        clocks.passes(0.0001)
        clock.current_time()
    assert reads["boottime"] < 10
    assert reads["monotonic"] < 1_010
