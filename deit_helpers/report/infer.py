"""The tables of one notebook, made from the run's files. Those over all batch sizes are in `overview.py`."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts, Table, from_records, runtime_text
from .notes import notes as notes


def stages(run: Run) -> Table:
    infer = run.read("infer")
    interface = {"inference": infer["interface_images_per_s"]}
    rows = [{**row, "interface": interface.get(row["name"])} for row in infer["stages"]]
    own = infer["warmup_batches"] is not None  # a vendor's file does not say all of it
    overlap = "; data read and preprocess run in threads ahead of the model, so seconds overlap" if own else ""
    over = f" over {infer['images']} images" if infer["images"] else ""
    warm_up = f"; {infer['warmup_batches']} warm-up batches not counted" if own else ""
    full = f", over {infer['interface_batches']} full batches" if infer["interface_batches"] else ""
    return from_records(
        f"Stages{over} in batches of {infer['batch_size']} on {runtime_text(infer['runtime'])}{overlap}"
        f"{warm_up}; Interface is the model call alone{full}",
        rows,
        {"name": "stage", "seconds": "seconds", "images_per_s": "images/s", "interface": "Interface images/s"},
        {"seconds": ".3f", "images_per_s": ".1f", "interface": ".1f"},
    )


def reference(run: Run) -> Facts:
    found = run.read("agreement")
    return Facts(
        f"The reference on the same {found['images']} tensors, against bs{run.batch_size}",
        {
            "largest difference": f"{found['max_abs_diff']:.2g}",
            "standard deviation of the logits": f"{found['std']:.2g}",
            "same top-1 %": f"{found['top1_agreement_percent']:.2f}",
        },
    )
