"""What a run says: the live line, stamped lines where there is no terminal, the log; with a clock that is set by hand."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from deit_helpers import terminal
from deit_helpers.run import progress
from deit_helpers.terminal import Terminal

LABEL = "[9/18] 05_infer bs8"
HALF_WAY = {"phase": "infer", "first": [200, 10.0], "last": [1200, 30.0], "total": 50_000, "text": "Acc@1 79.6 % so far"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Tty(io.StringIO):
    """A terminal 200 columns wide."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 99


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((200, 24)))
    return Tty()


def said(stream: io.StringIO) -> list[str]:
    """Lines without their time."""
    return [line[9:] for line in stream.getvalue().splitlines()]


def test_where_there_is_no_terminal_a_step_is_said_at_its_start_every_30_s_and_at_its_end(tmp_path: Path, clock: Clock) -> None:
    stream, facts = io.StringIO(), tmp_path / "progress"
    screen = Terminal(tmp_path, "again", stream, clock)
    with screen.step(LABEL, facts, tmp_path):
        facts.write_text(json.dumps(HALF_WAY))
        for _ in range(70):
            clock.now += 1
            screen.tick()
    told = "  infer  1,200/50,000 images  50.0 images/s  Acc@1 79.6 % so far  ETA 16 min"
    assert said(stream) == [LABEL, f"{LABEL}  30 s{told}", f"{LABEL}  60 s{told}", f"{LABEL} done in 70 s"]
    logged = (tmp_path / "run.log").read_text().splitlines()
    assert [line[11:] for line in logged] == stream.getvalue().splitlines()


def test_a_terminal_shows_every_second_that_something_runs_and_how_far_it_is(tmp_path: Path, clock: Clock, tty: Tty) -> None:
    screen, facts = Terminal(tmp_path, "again", tty, clock), tmp_path / "progress"
    with screen.step(LABEL, facts, tmp_path):
        for second in range(4):
            tty.truncate(tty.seek(0))
            screen.tick()
            assert tty.getvalue() == f"\r{LABEL}  {second} s"
            clock.now += 1
        facts.write_text(json.dumps(HALF_WAY))
        screen.tick()
        assert "1,200/50,000 images  50.0 images/s  Acc@1 79.6 % so far  ETA 16 min" in tty.getvalue()
        facts.write_text('{"phase": "re')  # half written
        tty.truncate(tty.seek(0))
        screen.tick()
        assert tty.getvalue().rstrip() == f"\r{LABEL}  4 s"
        assert len(tty.getvalue()) > 80  # what was longer is gone
    assert tty.getvalue().endswith(f"{LABEL} done in 4 s\n")


def test_lanes_that_run_side_by_side_share_the_line_which_is_never_wider_than_the_terminal(
    tmp_path: Path, clock: Clock, tty: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal(tmp_path, "again", tty, clock)
    with screen.step("[2/9] 04_preprocess", tmp_path, tmp_path), screen.step("[3/9] 02_optimize bs1", tmp_path, tmp_path):
        screen.tick()
        assert tty.getvalue() == "\r[2/9] 04_preprocess  0 s | [3/9] 02_optimize bs1  0 s"
        monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((20, 24)))
        tty.truncate(tty.seek(0))
        screen.tick()
        assert tty.getvalue() == "\r[2/9] 04_preprocess"


def test_a_step_that_fails_names_its_page_and_the_log_keeps_the_traceback(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    screen = Terminal(tmp_path, "again", stream, clock)

    def fails() -> None:
        clock.now += 3
        raise ValueError("\x1b[31mno memory\x1b[0m")

    with pytest.raises(ValueError, match="no memory"), screen.step(LABEL, tmp_path, Path("05_infer.html")):
        fails()
    assert said(stream)[1:] == [f"{LABEL} failed after 3 s: see 05_infer.html"]
    assert (tmp_path / "run.log").read_text().endswith("ValueError: no memory\n")
    assert screen.steps == {}


def test_a_folder_that_takes_no_log_stops_no_run(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Terminal(tmp_path / "none", "again", stream, clock) as screen, screen.step(LABEL, tmp_path, tmp_path):
        pass
    assert "log:" not in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_a_duration_is_one_number(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_progress_is_written_once_a_second_and_at_the_end_and_what_was_there_before_is_no_speed(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, written = tmp_path / "progress", list[int]()
    monkeypatch.setenv(progress.FILE, str(path))
    monkeypatch.setattr(progress.time, "monotonic", clock)
    progress.phase("infer")
    for done in range(400, 501):  # 400 of an interrupted run, then eight a second
        progress.count(done, 500, "")
        facts = json.loads(path.read_text())
        written += [facts["last"][0]] if facts["last"][0] not in written else []
        clock.now += 0.125
    assert written == [*range(400, 500, 8), 500]
    assert terminal.progress_text(facts) == "  infer  500/500 images  8.0 images/s  ETA 0 s"
    progress.phase("reference")
    assert json.loads(path.read_text()) == {"phase": "reference"}


def test_a_notebook_opened_by_hand_writes_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(progress.FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    progress.phase("infer")
    assert list(tmp_path.iterdir()) == []
