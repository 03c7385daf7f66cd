"""How many streams a runtime gets: by their rates, tried in turn, on a backend whose speed is made up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from deit_helpers.backends import Backend, Execution, Loaded, Options, Pool, bench
from deit_helpers.backends.bench import fastest


class Paced(Backend):
    """Takes `alone_ms` for a batch, or `side_by_side_ms` where two are worked on at once."""

    runtime_keys: ClassVar[dict[str, type]] = {"streams": int}

    def __init__(self, alone_ms: float, side_by_side_ms: float, **runtime: int):
        super().__init__(Path("m.onnx"), Options(runtime=runtime))
        self.wait_s, self.closed, self.run = (alone_ms if self.streams == 1 else side_by_side_ms) / 1000, False, 0

    def load(self) -> Loaded:
        return Loaded([None] * self.streams, 2, 3, 4, np.dtype(np.float32))

    def infer(self, session: None, batch: np.ndarray) -> Execution:
        self.run += 1
        time.sleep(self.wait_s)
        return Execution(np.zeros((len(batch), 3), np.float32))

    def describe(self) -> dict[str, Any]:
        return {"device": "CPU"}

    def close(self, failing: bool) -> None:
        self.closed = True


@pytest.mark.parametrize(("side_by_side_ms", "best"), [(5.0, 2), (50.0, 1)])
def test_the_number_of_streams_with_the_highest_rate_is_used(side_by_side_ms: float, best: int) -> None:
    loaded: dict[int, Paced] = {}

    def load(**keys: int) -> Pool:
        backend = Paced(10.0, side_by_side_ms, **keys)
        loaded[backend.streams] = backend
        return Pool(backend)

    model = fastest(load)
    assert model.backend is loaded[best]
    assert {streams: backend.closed for streams, backend in loaded.items()} == {best: False, 3 - best: True}
    assert model.tuning_s > 0
    assert min(backend.run for backend in loaded.values()) > bench.TRIALS


@pytest.mark.parametrize(("slow_ms", "runtime"), [(5.0, {}), (bench.SLOW_MS, {"streams": 2})])
def test_where_a_batch_takes_long_or_the_spec_says_it_nothing_is_tried(
    monkeypatch: pytest.MonkeyPatch, slow_ms: float, runtime: dict[str, int]
) -> None:
    monkeypatch.setattr(bench, "SLOW_MS", slow_ms)
    backend = Paced(10.0, 10.0, **runtime)

    def load(**keys: int) -> Pool:
        assert keys == {}
        return Pool(backend)

    assert fastest(load).backend is backend
    assert not backend.closed
