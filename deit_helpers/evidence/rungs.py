"""The waterfall's rungs: what each of them changes, and the logits of all images of the run after it.

Logits are kept in the run folder as `waterfall/NAME-KEY.npy`, a file a rung, for all batch sizes: one that is there is used
again, also after an interrupt, as long as its key says that nothing it depends on changed.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from tqdm import tqdm

from .. import files
from ..backends import Options, Pool, open_backend
from ..data import batches, sources
from ..errors import ArtifactError, DeitError, GraphError, one_line
from ..graph import simplify
from ..graph.graph import Graph, fix_batch, with_shapes
from ..model import checkpoint
from ..run import hashing, records
from ..run.folder import Run
from ..run.host import physical_cores
from ..run.lineage import RUNG_CODE
from ..run.recipes import RECIPES
from ..run.rungs import DEVICE, EDITS, MODELS, PRECISIONS
from .inputs import Input, is_stored, tensor_batches

FOLDER = "waterfall"  # in the run folder
BATCH_SIZE = 8
MOST_STREAMS = 8  # sessions of a graph, which share the cores; each of them holds the weights once more
START = "start"  # the rung before the first change, where the list opens neither with a recipe nor with torch


class State(NamedTuple):
    """What gives a rung its logits: how images become tensors, what runs (one of MODELS), its edits and precision."""

    given: Input
    model: str
    edits: tuple[str, ...] = ()
    precision: str = "fp32"

    def after(self, name: str) -> State:
        """This with the change that a rung is called after. Edits need a simplified graph, another precision needs a graph."""
        if name == START:
            return self
        if name in MODELS:
            return self._replace(model=name)
        if name in EDITS:
            return self._replace(model="simplified", edits=(*self.edits, name))
        if name in PRECISIONS:
            return self._replace(model="onnx" if self.model == "torch" else self.model, precision=name)
        return self._replace(given=self.given.changed(name))

    def facts(self) -> dict[str, Any]:
        """The state as `waterfall.json` has it."""
        recipe = self.given.recipe.model_dump(mode="json", exclude={"name"})
        channels = "BGR" if self.given.bgr else "RGB"
        return {**recipe, "channels": channels, "model": self.model, "edits": list(self.edits), "precision": self.precision}

    def differences(self, other: State) -> dict[str, str]:
        """What is another in `other`, in words, by its name in `facts`."""
        mine, others = self.facts(), other.facts()
        return {name: f"{name} {_text(mine[name])} → {_text(others[name])}" for name in mine if mine[name] != others[name]}


class Rung(NamedTuple):
    """A rung that was made, or the reason why not.

    Attributes:
        logits: the file; None where the rung could not be made.
        more_changes: what else than its name says is another than in the last rung before it that was made.
        seconds: how long its images took now; None where they were not run again.
    """

    name: str
    state: State
    logits: Path | None = None
    more_changes: tuple[str, ...] = ()
    seconds: float | None = None
    reason: str | None = None


def climb(run: Run) -> Iterator[Rung]:
    """Make the rungs of the spec's `waterfall`, in order. What one changes that cannot be made, those after it do without."""
    names = run.spec.waterfall
    if names[0] != "torch" and names[0] not in RECIPES:
        names = (START, *names)
    images, _ = sources.read_index(run)
    kept = list[Path]()
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder, batches.progress(len(images) * len(names)) as bar:
        maker = _Maker(run, records.key(run, "waterfall"), images, Path(folder), bar)
        state = maker.start()
        for number, name in enumerate(names):
            after = maker.of_device() if name == DEVICE else state.after(name)
            bar.set_postfix_str(name, refresh=False)
            begun = time.perf_counter()
            try:
                if name == "onnx" and after == state and kept:
                    raise ArtifactError("PyTorch or the checkpoint is not on this host: the rungs above ran the exported graph")
                path, made = (run.file("logits"), False) if name == DEVICE else maker.logits(name, after)
            except (DeitError, ImportError) as err:
                yield Rung(name, after, reason=one_line(err, 300))
            else:
                seconds = round(time.perf_counter() - begun, 3) if made else None
                yield Rung(name, after, path, _more_changes(name, state, after) if kept else (), seconds)
                state = after
                kept.append(path)
            bar.update(len(images) * (number + 1) - bar.n)
    if len(kept) == len(names):
        discard(run, kept)


def discard(run: Run, kept: Iterable[Path] = ()) -> None:
    """Remove the logits of all rungs but these.

    Raises:
        ArtifactError: a file cannot be removed.
    """
    for path in {*(run.folder / FOLDER).glob("*.npy")} - {*kept}:
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise files.unwritable(path, err) from err


def _more_changes(name: str, before: State, after: State) -> tuple[str, ...]:
    changed = before.differences(after)
    if name == DEVICE:
        return tuple(changed.values())
    return tuple(text for key, text in changed.items() if key == "model" and name not in MODELS)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class _Maker:
    """Makes the logits of states: `made_from` is what the stage depends on, `images` are the names of the run's index."""

    run: Run
    made_from: dict[str, Any]
    images: list[str]
    folder: Path  # of the graphs, while they are needed
    bar: tqdm

    def start(self) -> State:
        """The spec's own recipe in the torch module, if the rungs lead from there and it is here; else in a graph."""
        names, inputs = {*self.run.spec.waterfall}, self.made_from["inputs"]
        weights = inputs.get("checkpoint") or inputs.get("demo_checkpoint")
        of_torch = names & {"torch", "onnx"} and weights and self.made_from["packages"]["torch"]
        edits_alone = names.intersection(EDITS) and not names.intersection(MODELS)
        return State(Input(self.run.spec.recipe), "torch" if of_torch else "simplified" if edits_alone else "onnx")

    def of_device(self) -> State:
        """What the device was given, as far as the spec tells."""
        spec = self.run.spec
        model = "torch" if spec.backend_row.device_model == "checkpoint" else "simplified"
        return State(Input(spec.recipe), model, spec.edits, spec.precision_text)

    def key(self, state: State) -> str:
        """What the logits of a state depend on, not counting how many threads make them."""
        of_torch, given = state.model == "torch", self.made_from
        weights = ("checkpoint", "demo_checkpoint") if of_torch else ("onnx",)
        inputs = (*weights, "images" if is_stored(self.run, state.given) else "source")
        versions = {name: version for name, version in given["packages"].items() if of_torch or name not in ("torch", "timm")}
        spec = {name: given["spec"][name] for name in ("model", "model_args", "ema")} if of_torch else {}
        made_from = [spec, {name: given["inputs"].get(name) for name in inputs}, hashing.code_sha256(RUNG_CODE), versions]
        return hashing.fingerprint([state.facts(), self.images, *made_from])

    def logits(self, name: str, state: State) -> tuple[Path, bool]:
        """The file of a state's logits (N, C), and whether it was made now.

        Raises:
            DeitError: the images, the model or its runtime are not here, or do not go together.
        """
        folder, key = self.run.folder / FOLDER, self.key(state)[:16]
        path = next(folder.glob(f"*-{key}.npy"), folder / f"{name}-{key}.npy")
        with contextlib.suppress(OSError, ValueError, EOFError):  # damaged, or not there
            if len(np.load(path, mmap_mode="r")) == len(self.images):
                return path, False
        with self._open(state) as model, files.atomic(path) as temporary, temporary.open("wb") as file:
            source = tensor_batches(self.run, state.given, BATCH_SIZE, dtype=model.dtype)
            file.write(batches.npy_header("<f4", (len(self.images), model.classes)))
            with contextlib.closing(source), contextlib.closing(model.predictions(source)) as predictions:
                for prediction in predictions:
                    file.write(prediction.logits[prediction.batch.valid].tobytes())
                    self.bar.update(int(prediction.batch.valid.sum()))
        return path, True

    def _open(self, state: State) -> Pool:
        if state.model != "torch":
            streams = min(physical_cores(), MOST_STREAMS)
            return open_backend("onnxruntime", self._graph(state), Options(runtime={"streams": streams}))
        options = Options(
            batch_size=BATCH_SIZE,
            network=lambda: checkpoint.load(self.run, fused_attention=True)[0],
            recipe=state.given.recipe,
            runtime={"device": "cpu"},
        )
        return open_backend("torch", self.run.checkpoint, options)

    def _graph(self, state: State) -> Path:
        """The file of a state's graph, made from that of the state before its precision, its last edit, the simplifier."""
        from ..graph.edits import EDITS
        from ..precision.rounding import rounded

        if (state.model, state.precision) == ("onnx", "fp32"):
            return self.run.file("onnx")
        path = self.folder / f"{hashing.fingerprint(state.facts())}.onnx"
        if path.exists():
            return path
        if state.precision != "fp32":
            exact = onnx.load(self._graph(state._replace(precision="fp32")))
            proto = rounded(exact, "fp16" if state.precision == "fp16" else "bf16")
        elif state.edits:
            graph = Graph(onnx.load(self._graph(state._replace(edits=state.edits[:-1]))))
            EDITS[state.edits[-1]].apply(graph, state.given.recipe)
            proto = graph.proto()
        else:
            proto = simplified(self.run.file("onnx"), BATCH_SIZE).proto()
        onnx.save(proto, path)
        return path


def simplified(path: Path, batch_size: int) -> Graph:
    """The simplified graph of an exported one, for a fixed batch size.

    Raises:
        GraphError: the simplifier failed; why.
    """
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
        fixed, result = Path(folder) / "fixed.onnx", Path(folder) / "simplified.onnx"
        onnx.save(fix_batch(onnx.load(path), batch_size), fixed)
        if why := simplify.simplify(fixed, result):
            raise GraphError(f"simplified: {why}")
        return Graph(with_shapes(onnx.load(result)))
