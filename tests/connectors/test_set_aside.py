"""Set aside for a minute, doubling to an hour; told by a clock that the tests hold."""

from connectors.set_aside import SetAside, in_words


def test_what_is_refused_is_asked_for_again_when_its_time_is_over() -> None:
    aside = SetAside()
    assert aside.refused("a", "no", 5.0).until_s == 65.0
    aside.refused("b", "no", 10.0)
    aside.refused("c", "never", 10.0)
    assert (list(aside), len(aside), aside.reasons()) == (["a", "b", "c"], 3, ["no", "never"])
    assert aside.release(64.9) == []
    assert aside.release(65.0) == ["a"]
    assert "a" not in aside
    assert aside.is_suspect("a"), "until it is served"
    aside.served("a")
    assert not aside.is_suspect("a")
    assert aside.get("a") is None


def test_however_often_it_was_refused_an_hour_is_the_longest_wait() -> None:
    aside = SetAside()
    waits = [aside.refused("a", "no", 0.0).wait_s for _ in range(2_000)]
    assert waits[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert set(waits[8:]) == {3600}
    aside.served("a")
    assert aside.refused("a", "no", 0.0).wait_s == 60


def test_a_wait_is_told_as_people_say_it() -> None:
    assert [in_words(wait_s) for wait_s in (1, 60, 90, 120, 3000, 3600, 5400)] == [
        *("1 min", "1 min", "2 min", "2 min", "50 min", "1 h", "90 min"),
    ]
