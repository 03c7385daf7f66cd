"""What others had of the machine: from counts and pieces that are made up, and one child that really worked."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from deit_helpers.run import host

PERCENT, INTERRUPTED_PERCENT = host.Others.percent, host.interrupted_percent  # before `quiet_machine` takes them


class Times(NamedTuple):
    """What psutil says of a core on Linux, in s."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float = 0.0
    irq: float = 0.0
    softirq: float = 0.0
    steal: float = 0.0
    guest: float = 0.0


@pytest.fixture(autouse=True)
def sensors(quiet_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Others, "percent", PERCENT)


def others(
    monkeypatch: pytest.MonkeyPatch, clock_s: float, own_s: float, *cores: Times, affinity: set[int] | None = None
) -> tuple[float | None, float | None]:
    """What `Others` says when the cores counted so much after nothing, while our own programs had `own_s`."""
    counts = iter([[Times(*[0.0] * 9)] * len(cores), list(cores)])
    clock, own = iter([0.0, clock_s]), iter([0.0, own_s])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(counts))
    monkeypatch.setattr(host.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: affinity or set(range(len(cores))))
    process = SimpleNamespace(children=lambda recursive: [], cpu_times=lambda: (next(own), 0.0, 0.0, 0.0))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    measured = host.Others()
    return measured.percent()


def test_what_others_had_is_what_programs_had_without_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Times(7.0, 1.0, 1.0, 1.0), Times(4.0, 0.0, 1.0, 2.0, iowait=1.0, irq=1.0, softirq=1.0)
    assert others(monkeypatch, 10.0, 9.0, *cores) == (100 * 5.0 / 20.0, 0.0)


def test_time_of_other_guests_is_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert others(monkeypatch, 10.0, 6.0, Times(6.0, 0.0, 0.0, 2.0, steal=2.0)) == (20.0, 20.0)


def test_clocks_that_disagree_by_a_tick_give_nothing_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert others(monkeypatch, 10.0, 6.01, Times(6.0, 0.0, 0.0, 4.0)) == (0.0, 0.0)


def test_only_the_cores_that_this_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Times(10.0, 0.0, 0.0, 0.0), Times(4.0, 0.0, 0.0, 6.0)
    assert others(monkeypatch, 10.0, 4.0, *cores, affinity={1}) == (0.0, 0.0)
    assert others(monkeypatch, 10.0, 4.0, *cores, affinity={0, 2}) == (50.0, 0.0)  # core 1 is off: places are no numbers


@pytest.mark.parametrize(("clock_s", "core"), [(10.0, Times(0.0, 0.0, 0.0, 0.0)), (0.2, Times(0.1, 0.0, 0.0, 0.1))])
def test_a_sandbox_without_counts_or_too_short_a_time_is_not_zero(
    monkeypatch: pytest.MonkeyPatch, clock_s: float, core: Times
) -> None:
    assert others(monkeypatch, clock_s, 0.0, core, core) == (None, None)


def test_a_child_that_ended_is_our_own() -> None:
    *_, before_s = host._seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    *_, after_s = host._seconds()
    assert after_s - before_s >= 0.29


def test_what_is_asked_again_is_of_the_time_since(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([(0.0, 0.0, 0.0, 0.0, 0.0), (10.0, 10.0, 0.0, 10.0, 5.0), (20.0, 20.0, 0.0, 15.0, 10.0)])
    monkeypatch.setattr(host, "_seconds", lambda: next(seconds))
    measured = host.Others()
    assert [measured.percent()[0], measured.percent()[0]] == [50.0, 0.0]


def test_pieces_that_took_three_times_the_shortest_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cores", lambda: 2)
    threads = iter([[1.0] * 60, [1.0] * 17 + [2.0, 21.0]])  # a slow clock or a full cache may double one
    monkeypatch.setattr(host, "_pieces_s", lambda duration_s: next(threads))
    assert INTERRUPTED_PERCENT() == pytest.approx(100 * 20.0 / 100.0)


def test_pieces_are_timed_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.5, 3.0])
    monkeypatch.setattr(host.time, "perf_counter", lambda: next(clock))
    assert host._pieces_s(3.0) == [1.0, 1.5, 0.5]
