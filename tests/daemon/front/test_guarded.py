"""What is remembered of tokens over a restart."""

import logging
from pathlib import Path

import pytest

from daemon.front.guarded import Mark


def test_it_is_remembered_until_it_is_taken_back(tmp_path: Path) -> None:
    tape = str(tmp_path / "tape")
    assert not Mark(tape).is_set()
    Mark(tape).keep(guarded=False)
    for _ in range(2):
        Mark(tape).keep(guarded=True)
        assert Mark(tape).is_set()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]
    Mark(tape).keep(guarded=False)
    assert not Mark(tape).is_set()


def test_without_a_place_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Mark("").keep(guarded=True)
    assert not Mark("").is_set()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_looked_at_counts_as_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Mark(str(tmp_path / ("x" * 300))).is_set()
    assert "cannot be looked at" in caplog.text


def test_a_disk_that_takes_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Mark(str(tmp_path / "nothing" / "tape")).keep(guarded=True)
    assert "so that a restart does not know of it" in caplog.text
