"""rehearsal: the static graph, computed on the CPU as fp16 and bf16 do -> `rehearsal.json` and the nodes to keep in fp32.

Once per run, on the graph of the smallest batch size: the graphs of a run differ in nothing else, and small batches let
the most images be spread over the data set in the least memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from .. import files
from ..data.batches import crops_at
from ..data.sources import read_index
from ..data.transforms import prepare
from ..precision.rehearsal import configurations, rehearse
from ..run.folder import Run
from ..run.records import makes

IMAGES = 32


@makes("rehearsal")
def rehearsal(run: Run) -> dict[str, Any]:
    """Rehearse fp16 and bf16; returns the content of `rehearsal.json`.

    The images are spread evenly, as many as fill whole batches; a data set smaller than that is repeated.
    """
    at = run.at(min(run.spec.batch_sizes))
    optimize, graph = at.read("optimize"), onnx.load(at.file("static_onnx"))
    _, labels = read_index(run)
    count = -(-min(IMAGES, len(labels)) // at.size) * at.size
    chosen = np.array([i * len(labels) // count for i in range(count)])
    dtype = np.dtype(optimize["input_dtype"])
    batches = [prepare(crops_at(run, list(part)), run.spec.recipe, dtype) for part in np.split(chosen, count // at.size)]
    facts = {"batch_size": at.size, **rehearse(graph, batches, labels[chosen])}
    for name, text in configurations(facts).items():
        files.write_text(run.file(name), text)
    return facts
