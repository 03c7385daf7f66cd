"""What 05 shows: what each step of the pipeline took, and how far the logits lie from the reference."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts, Table
from .words import notes as notes
from .words import runtime_text


def stages(run: Run) -> Table:
    """Seconds and rates of the five steps that the benchmark tool prints."""
    infer = run.read("infer")
    measured_here = infer["warmup_batches"] is not None  # a vendor's file does not say all of it
    overlap = "; data read and preprocess run in threads ahead of the model, so seconds overlap" if measured_here else ""
    warm_up = f"; {infer['warmup_batches']} warm-up batches not counted" if measured_here else ""
    over = f" over {infer['images']} images" if infer["images"] else ""
    full = f", over {infer['interface_batches']} full batches" if infer["interface_batches"] else ""
    alone = {"inference": infer["interface_images_per_s"]}
    return Table(
        f"Stages{over} in batches of {infer['batch_size']} on {runtime_text(infer['runtime'])}{overlap}"
        f"{warm_up}; Interface is the model call alone{full}",
        "stage | seconds:.3f | images/s:.1f | Interface images/s:.1f",
        [[row["name"], row["seconds"], row["images_per_s"], alone.get(row["name"])] for row in infer["stages"]],
    )


def reference(run: Run) -> Facts:
    """The logits against those of the reference."""
    agreement = run.read("agreement")
    return Facts(
        f"The reference on the same {agreement['images']} tensors, against bs{run.batch_size}",
        {
            "largest difference": f"{agreement['max_abs_diff']:.2g}",
            "standard deviation of the logits": f"{agreement['std']:.2g}",
            "same top-1 %": f"{agreement['top1_agreement_percent']:.2f}",
        },
    )
