"""The fp32 reference of 05, once per run: ONNX Runtime on the exported graph and the very same tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import files
from ..backends import open_backend
from ..data import batches
from ..metrics import classification
from ..run import records
from ..run.folder import Run
from ..run.records import makes

BATCH_SIZE = 8


def reference(run: Run) -> dict[str, Any]:
    """Make the reference logits (N, C), once per run, and compare those of this batch size with them.

    Returns:
        The content of `agreement.json`: images, largest absolute difference, spread of the reference, top-1 agreement.
    """
    records.ensure(run, "reference", lambda: _infer(run))
    return _agreement(run)


@makes("agreement")
def _agreement(run: Run) -> dict[str, Any]:
    return classification.compare(np.load(run.file("reference")), np.load(run.file("logits")))


def _infer(run: Run) -> None:
    count = run.read("preprocess")["images"]
    with (
        open_backend("onnxruntime", run.file("onnx")) as model,
        files.atomic(run.file("reference")) as temporary,
        temporary.open("wb") as file,
        batches.progress(count) as bar,
    ):
        file.write(batches.npy_header("<f4", (count, model.classes)))
        for prediction in model.predictions(batches.batches(run, BATCH_SIZE)):
            file.write(prediction.logits[prediction.batch.valid].tobytes())
            bar.update(int(prediction.batch.valid.sum()))
