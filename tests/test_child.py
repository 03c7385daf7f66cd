"""A process of its own: what it prints is read, its end is one line, and it does not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deit_helpers import child


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('x' * 1_000_000)", None),  # a pipe holds 64 KiB
        ("raise ValueError('no\\nsuch value')", "failed with exit code 1: ValueError: no such value"),
        ("import sys; sys.exit('gave up')", "failed with exit code 1: gave up"),
        ("import os; os.abort()", "was killed by signal 6"),
        ("import time; time.sleep(60)", "did not end within 2 s"),
    ],
)
def test_how_it_ended_is_one_line(code: str, why: str | None) -> None:
    assert child.run(["-c", code], limit_s=2 if "sleep" in code else 60) == why


SLEEPER = "import os, sys, time; from deit_helpers import child; child.end_with_parent(); "
SLEEPER += "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
PARENT = "import signal, sys; from deit_helpers import child; signal.signal(signal.SIGINT, signal.default_int_handler); "
PARENT += "child.run(['-c', sys.argv[1], sys.argv[2]], 60)"  # where the tests run in the background it would be ignored


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it runs to its limit")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, SLEEPER, str(noted)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))
    wait_until(lambda: noted.exists() and noted.read_text() != "")
    parent.send_signal(how)
    parent.wait(10)
    wait_until(lambda: not Path(f"/proc/{noted.read_text()}").exists())


def wait_until(holds: object, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)
