"""What a run says while it works: one live line on a terminal, elsewhere a stamped line every 30 s; all is kept in its log."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from typing_extensions import Self

from .errors import StoppedError
from .files import read_json

EVERY_S = 30.0  # between two lines of the steps that run, in the log and where there is no terminal
REFRESH_S = 0.5  # of the live line
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # in a kernel's traceback


class Terminal:
    """Follows the steps of a run. As a context it shows those that run, until it ends.

    Attributes:
        log: `run.log` in the folder of the run: every line, and tracebacks; it is appended to.
        command: what goes on with the run, as a user types it.
        steps: label of each step that runs, or ran when Ctrl-C came -> its file of `run/progress.py`, and since when.
    """

    def __init__(
        self, folder: Path, command: str, stream: TextIO | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.log, self.command = folder / "run.log", command
        self._stream, self._clock = stream or sys.stderr, clock
        self._is_live = self._stream.isatty()
        self.steps: dict[str, tuple[Path, float]] = {}
        self._start_s, self._next_s, self._drawn = clock(), clock() + EVERY_S, 0
        self._logged = False
        self._lock, self._ended = threading.RLock(), threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
            self._draw("")
            if self._logged:
                print(f"log: {self.log}", file=self._stream, flush=True)

    def say(self, text: str, shown: bool = True) -> None:
        """A line with its time: in the log, and where `shown` also on the terminal."""
        with self._lock:
            now = time.localtime(self._clock())
            self._log(f"{time.strftime('%Y-%m-%d %H:%M:%S', now)} {text}\n")
            if shown:
                self._draw("")
                print(time.strftime("%H:%M:%S", now), text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def step(self, label: str, progress: Path, page: Path) -> Iterator[None]:
        """A step is run: `progress` is where its kernel tells how far it is, `page` what shows its error."""
        self.steps[label] = progress, (start_s := self._clock())
        self.say(label, not self._is_live)
        try:
            yield
        except StoppedError:  # it stays among those that run
            raise
        except Exception as err:
            del self.steps[label]
            self.say(f"{label} failed after {duration(self._clock() - start_s)}: see {page}")
            self._log(_COLOURS.sub("", "".join(traceback.format_exception(err))))
            raise
        del self.steps[label]
        self.say(f"{label} done in {duration(self._clock() - start_s)}")

    def tick(self) -> None:
        """Draw the live line anew, and say what runs when that is due."""
        with self._lock:
            if self._ended.is_set():
                return
            now_s, steps = self._clock(), list(self.steps.items())
            texts = [f"{label}  {duration(now_s - since)}{progress_text(read_json(path))}" for label, (path, since) in steps]
            if texts and now_s >= self._next_s:
                self._next_s = now_s + EVERY_S
                for text in texts:
                    self.say(text, not self._is_live)
            if self._is_live:
                self._draw(" | ".join(texts) or f"checking what is current, {duration(now_s - self._start_s)} since the start")

    def _follow(self) -> None:
        while not self._ended.wait(REFRESH_S):
            self.tick()

    def _draw(self, text: str) -> None:
        """Put a text in the place of the live line; the empty one leaves the line to what is printed next."""
        if self._is_live and (text or self._drawn):
            width = (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1
            shown = text[:width]
            print(f"\r{shown.ljust(min(self._drawn, width))}", end="" if text else "\r", file=self._stream, flush=True)
            self._drawn = len(shown)

    def _log(self, text: str) -> None:
        """A full disk ends no run here: what is to be kept meets it, too, and names it."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            self._logged = True


def progress_text(facts: dict[str, Any]) -> str:
    """What a file of `run/progress.py` says: `infer  1,200/50,000 images  41.2 images/s  Acc@1 79.6 % so far  ETA 12 min`."""
    parts = [facts.get("phase", "")]
    if total := facts.get("total"):
        (first, start_s), (done, now_s) = facts["first"], facts["last"]
        parts += [f"{done:,}/{total:,} images"]
        if done > first and now_s > start_s:
            rate = (done - first) / (now_s - start_s)
            parts += [f"{rate:.1f} images/s", facts["text"], f"ETA {duration((total - done) / rate)}"]
    return "".join(f"  {part}" for part in parts if part)


def duration(seconds: float) -> str:
    """Time as one number that is read at a glance: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
