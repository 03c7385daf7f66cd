"""`deit-report import`: what a vendor's tool measured elsewhere becomes the files of 05 and 07, marked as imported.

Nothing is run: logits come from dumps, rates from the performance file or summary, operators from a profile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import files
from .ascend import msprof
from .errors import ArtifactError
from .executors import measured
from .metrics.operators import OperatorProfile
from .run import records
from .run.folder import Run
from .stages import perf


def import_results(
    run: Run,
    source: Path,
    dumps: Path | None,
    prof: Path | None,
    devices: int = 1,
    device: str = "an Ascend device",
    batches: int | None = None,
) -> dict[str, Any]:
    """Write the files of 05 and 07 from what was measured elsewhere; returns the content of `infer.json`.

    Args:
        source: a performance file, a pure-inference file, the text of a recipe (.md), or an ais_bench summary.
        dumps: a folder with one output per image of the run.
        prof: a folder of msprof.
        devices: how many devices the card has; the tool's rates are of one. An Atlas 300I (310) has 4, a 310P card 1.
        device: what was measured, in words.
        batches: how many the profile is of, where its counts do not tell.

    Raises:
        ArtifactError: 04 was not run though there are dumps, a file does not fit the run, or a name is not UTF-8.
        ToolError: the profile cannot be read.
    """
    for text in map(str, (source, dumps, prof, device)):
        if not files.is_utf8(text):  # as the files of a run are written
            raise ArtifactError(f"{text}: not UTF-8: rename it, or say it in other words")
    # All of it is read first: what is refused leaves the run as it is.
    result = measured.read_performance(run, source)
    profile: OperatorProfile | str = "no profile was imported"
    if prof:
        table = msprof.read(prof)
        if (batches := batches or msprof.batches(table)) is None:
            counts = ", ".join(f"{row.op_type} {row.calls}" for row in table.head(3).itertuples())
            raise ArtifactError(f"{prof}: its counts ({counts} …) do not tell of how many batches: say it, as --batches 10")
        profile = OperatorProfile(table, batches)
    if dumps:
        records.require(run, "index")
        measured.write_logits(run, dumps)
    else:  # those of another runtime must not stand beside this one's speed
        for name in ("logits", *records.outputs(run, "agreement"), *records.outputs(run, "score")):
            run.file(name).unlink(missing_ok=True)
        for stage in ("score", "agreement"):
            records.forget(run, stage)
    runtime = {"version": "imported", "device": device, "precision": "precision not stated"}
    card = {"devices": devices, "card_images_per_s": devices * result.images_per_s}
    facts = measured.write_performance(run, result, runtime, imported_from=source.name, **card)
    files.write_json(run.file("infer"), facts)
    files.write_json(run.file("perf"), perf.perf_facts(run, facts, profile))
    for stage in ("infer", "perf"):
        records.adopt(run, stage, [str(path) for path in (source, dumps, prof) if path], device, images=dumps is not None)
    return facts
