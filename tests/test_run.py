"""How the suite is run: what fails beside others gets a second chance by itself, and only that."""

from pathlib import Path

from tests.run import ALONE, PROCESSES, SLOW, SLOW_PATTERNS, WAITING, Stream, _failed

SOURCE = """
from pathlib import Path

MARK = Path({mark!r})


def test_good() -> None:
    with MARK.open("a") as mark:
        mark.write("good ")


def test_at_the_second_try() -> None:
    tried = MARK.exists() and "tried" in MARK.read_text()
    with MARK.open("a") as mark:
        mark.write("tried ")
    assert tried


def test_never() -> None:
    assert {never}
"""


def stream(folder: Path, *, never: bool) -> Stream:
    tests = folder / "test_made_up.py"
    tests.write_text(SOURCE.format(mark=str(folder / "mark"), never=never))
    return Stream("made_up", folder, (str(tests),), options=("-q", "-c", "/dev/null", f"--rootdir={folder}"))


def test_only_what_failed_is_run_again_and_its_second_result_counts(tmp_path: Path) -> None:
    made_up = stream(tmp_path, never=True)
    assert made_up.run() == 1
    assert [name.rpartition("::")[2] for name in _failed(made_up)] == ["test_at_the_second_try"]
    assert made_up.run_again() == 0
    assert (tmp_path / "mark").read_text().split() == ["good", "tried", "tried"]


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    made_up = stream(tmp_path, never=False)
    assert made_up.run() == 1
    assert made_up.run_again() == 1


def test_what_cannot_be_run_is_no_mere_failure(tmp_path: Path) -> None:
    made_up = stream(tmp_path, never=True)
    (tmp_path / "test_made_up.py").write_text("import nothing_of_that_name\n")
    assert made_up.run() not in (0, 1)


def test_output_of_the_background_is_kept(tmp_path: Path) -> None:
    made_up = stream(tmp_path, never=True)
    assert made_up.start().wait() == 1
    assert "test_at_the_second_try" in made_up.output.read_text()


def test_whatever_is_named_is_there() -> None:
    root = Path(__file__).parents[1]
    named = (*ALONE, PROCESSES, *SLOW, *SLOW_PATTERNS, *WAITING)
    assert [name for name in named if not any(root.glob(name))] == []
