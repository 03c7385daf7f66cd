"""What a runtime's author writes: `load`, `infer` and `describe`. The README of this folder shows a whole backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..errors import BackendError
from ..metrics.operators import OperatorProfile
from ..run.recipes import RECIPES, PreprocessSpec

PEAK_SIDE = 1536  # such matrices fit no cache of a core


@dataclass(frozen=True)
class Options:
    """What a spec says of how a model runs; a backend reads what concerns it.

    Attributes:
        batch_size: of the run, for a backend whose file states none; `recipe` normalises its crops.
        cache: a folder for what the runtime compiles.
        network: builds the network from the checkpoint, for a backend that loads no file.
        runtime: keys of the backend's own, see `Backend.runtime_keys`.
    """

    precision: str = "fp32"
    device: int = 0
    batch_size: int | None = None
    execution: Literal["sync", "async"] = "sync"
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cache: Path | None = None
    network: Callable[[], Any] | None = None
    recipe: PreprocessSpec = RECIPES["deit"]
    runtime: Mapping[str, int | str | bool] = field(default_factory=dict)


class Loaded(NamedTuple):
    """A model that is ready, of images `image_px` high and wide; as many batches are in flight as there are sessions.

    `batch_size` None is any; `dtype` is float32 for normalised (B, 3, H, W), uint8 for crops (B, H, W, 3) that the model
    normalises itself.
    """

    sessions: Sequence[Any]
    batch_size: int | None
    classes: int
    image_px: int
    dtype: np.dtype


class Execution(NamedTuple):
    """Logits (B, C) float32 of a batch, owned by the caller.

    `ms` is the execution alone, where the runtime tells it from its copies; `latency_ms` is from sending the batch until its
    logits were back, where the device has a clock of its own.
    """

    logits: np.ndarray
    ms: float | None = None
    latency_ms: float | None = None


class Backend(ABC):
    """One model in one runtime. `pool.Pool` owns it, checks what goes in and comes out, keeps time, and closes it.

    Attributes:
        runtime_keys: what `runtime` of the spec may say, with the type of each value.
        errors: what the runtime raises when it fails; the pool makes a BackendError of it.
        times_executions: whether every `infer` says how long the execution alone took.
        hint: what may help after a failure.
        streams: how many batches the spec wants to run at once.
    """

    runtime_keys: ClassVar[dict[str, type]] = {}
    errors: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)
    times_executions: ClassVar[bool] = False
    hint = ""

    def __init__(self, path: Path, options: Options):
        self.path, self.options = path, options
        self.runtime: dict[str, Any] = dict(options.runtime)
        for key, value in self.runtime.items():
            if type(value) is not self.runtime_keys.get(key):
                keys = ", ".join(f"{key}: {kind.__name__}" for key, kind in self.runtime_keys.items()) or "nothing"
                raise BackendError(f"runtime: {type(self).__name__} does not take {key}: {value!r}; it takes {keys}")
            if type(value) is int and not 1 <= value <= 1024:  # 100,000 threads only wait for each other
                raise BackendError(f"runtime: {key}: {value}, expected 1 to 1024")
        self.streams: int = self.runtime.get("streams", 1)

    @abstractmethod
    def load(self) -> Loaded:
        """Load the model, or raise a BackendError where it does not map a batch of images to as many logits."""

    @abstractmethod
    def infer(self, session: Any, batch: np.ndarray) -> Execution:
        """Run a batch that fits what `load` returned, C-contiguous. Threads call this at once, each with another session."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the report: `backend`, `version`, `device`, `precision`, and `hardware`: what alike devices have in common."""

    def close(self, failing: bool) -> None:  # noqa: B027  # most have nothing to give back
        """Give back what `load` took, also after it failed. `failing`: an exception is on its way, and the one to be seen."""


@runtime_checkable
class Queued(Protocol):
    """What a device that queues work offers besides: with two sessions, one batch is copied while another runs."""

    def start(self, session: Any, batch: np.ndarray) -> Any:
        """Send a batch, and return what `finish` needs."""

    def finish(self, started: Any) -> Execution:
        """Wait for a batch that was sent; those sent before it are finished."""


@runtime_checkable
class Profiler(Protocol):
    """What a backend may offer besides: its own profiler, and the rate of a plain matrix product."""

    def profile(self, batch: np.ndarray, at_most: int) -> OperatorProfile: ...

    def peak_flops_per_s(self) -> float: ...
