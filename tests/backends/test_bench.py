"""How many streams a runtime gets: by their rates, tried in turn, on a backend whose speed is made up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from deit_helpers.backends import Backend, bench
from deit_helpers.backends.bench import fastest


class Paced(Backend):
    """Takes `alone_ms` for a batch, or `side_by_side_ms` where two are worked on at once."""

    runtime_keys: ClassVar[dict[str, type]] = {"streams": int}

    def __init__(self, streams: int, alone_ms: float, side_by_side_ms: float):
        super().__init__(Path("m.onnx"))
        self.streams = self.in_flight = streams
        self.batch_size, self.classes, self.image_px, self.dtype = 2, 3, 4, np.dtype(np.float32)
        self.wait_s, self.closed, self.run = (alone_ms if streams == 1 else side_by_side_ms) / 1000, False, 0

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        self.run += 1
        time.sleep(self.wait_s)
        return np.zeros((len(batch), self.classes), np.float32)

    def describe(self) -> dict[str, Any]:
        return {"device": "CPU"}

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True


@pytest.mark.parametrize(("side_by_side_ms", "best"), [(5.0, 2), (50.0, 1)])
def test_the_number_of_streams_with_the_highest_rate_is_used(side_by_side_ms: float, best: int) -> None:
    loaded = {1: Paced(1, 10.0, side_by_side_ms), 2: Paced(2, 10.0, side_by_side_ms)}
    assert fastest(lambda streams=1: loaded[streams]) is loaded[best]
    assert {streams: backend.closed for streams, backend in loaded.items()} == {best: False, 3 - best: True}
    assert loaded[best].tuning_s > 0
    assert min(backend.run for backend in loaded.values()) > bench.TRIALS


def test_where_a_batch_takes_long_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SLOW_MS", 5.0)
    slow = Paced(1, 10.0, 10.0)

    def load(**keys: int) -> Backend:
        assert keys == {}
        return slow

    assert fastest(load) is slow
    assert not slow.closed
