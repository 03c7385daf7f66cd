"""Whether a file of a run may be used as it stands.

`reports/<run>/meta/<stage>.json` records how a stage's files were made: hashes of inputs and outputs, the spec keys,
the code and the package versions. A file without a matching record is never reused.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..ascend import cann, npu_smi
from ..errors import ArtifactError, ToolError
from ..files import read_json, unwritable, write_dir, write_json
from . import progress
from .expected import expected_row
from .folder import Run
from .hashing import code_sha256, fingerprint, listing_sha256, sha256
from .host import git_commit, machine, version_of
from .lineage import FILES, MAKER, NOTEBOOK_OF, NOTEBOOKS, STAGES

MakeFacts = Callable[[Run], dict[str, Any]]
_KEYS = {"outputs", "spec", "inputs", "packages", "code", "seconds", "machine", "git_commit"}  # what others ask of a record


def makes(stage: str, facts: str | None = None) -> Callable[[MakeFacts], MakeFacts]:
    """A decorator: the function makes a stage's files and returns the content of its JSON file, unless they are current.

    That file has the stage's own name in the lineage, or that of `facts`.
    """

    def decorate(make: MakeFacts) -> MakeFacts:
        @functools.wraps(make)
        def make_unless_current(run: Run) -> dict[str, Any]:
            ensure(run, stage, lambda: write_json(run.file(facts or stage), make(run)))
            return run.read(facts or stage)

        return make_unless_current

    return decorate


def record_path(run: Run, stage: str) -> Path:
    """Where the record of a stage lies in the run folder."""
    suffix = f"_bs{run.size}" if STAGES[stage].per_batch else ""
    return run.folder / "meta" / f"{stage}{suffix}.json"


def read_record(run: Run, stage: str) -> dict[str, Any]:
    """The record of a stage; empty when there is none or it is damaged."""
    record = read_json(record_path(run, stage))
    return record if record.keys() >= _KEYS else {}


def hashes(run: Run, stage: str) -> dict[str, str]:
    """Path in the run folder -> sha256 of the files that a stage made, as its record says."""
    return {path: facts["sha256"] for path, facts in read_record(run, stage).get("outputs", {}).items()}


def stages_of(run: Run, notebook: str) -> list[str]:
    """The stages of a notebook that this run has."""
    stages = NOTEBOOKS[notebook].stages
    return [name for name, row in stages.items() if row.only_for is None or getattr(run.spec, row.only_for) == "demo"]


def how_to_make(run: Run, stage: str) -> str:
    """Which notebook makes a stage's files, for error messages."""
    batch = f" with batch_size={run.batch_size}" if STAGES[stage].per_batch else ""
    return f"run notebooks/{NOTEBOOK_OF[stage]}.ipynb{batch} (or `deit-report run`)"


def ensure(run: Run, stage: str, make: Callable[[], None]) -> bool:
    """Make a stage's files unless they are current; returns whether `make` ran. One process at a time.

    Raises:
        ArtifactError: an input is missing, damaged or stale; the message names the notebook that makes it.
    """
    if problem(run, stage) is None:
        return False
    run, path = _opened_for(run, stage), record_path(run, stage)
    write_dir(path.parent)
    try:
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as err:
        raise unwritable(path, err) from err
    with lock:
        if problem(run, stage) is None:  # another process made it while we waited
            return False
        require(run, *(name for name in inputs_of(run, stage) if name in MAKER))
        start, made_from = time.perf_counter(), key(run, stage)
        progress.phase(stage)
        make()  # where it fails, the old record still tells the files that it changed from those it did not
        progress.phase("")
        _record(run, stage, made_from, round(time.perf_counter() - start, 3))
    return True


def _opened_for(run: Run, stage: str) -> Run:
    """The run as a stage works on it: what is made once from files per batch size is made from the smallest one's."""
    of_batch = any(STAGES[MAKER[name]].per_batch for name in STAGES[stage].inputs if name in MAKER)
    return run.at(min(run.spec.batch_sizes)) if of_batch and not STAGES[stage].per_batch else run


def adopt(run: Run, stage: str, sources: list[str], device: str, images: bool) -> None:
    """Record files that were not made here but brought in from a device; they are current as long as nobody changes them.

    With `images` they belong to those of 04, and to no others.
    """
    belongs = {name: _input_sha256(run, name) for name in ("index", "preprocess")} if images else {}
    origin = {"imported_from": sources, "imported_for": belongs, "machine": {"cpu": device}}
    write_dir(record_path(run, stage).parent)
    _record(run, stage, {**key(run, stage), **origin}, None)


def _record(run: Run, stage: str, made_from: dict[str, Any], seconds: float | None) -> None:
    made = {}
    for file in (file for name in outputs(run, stage) if (file := run.file(name)).exists()):
        stat = file.stat()
        made[run.relative(file)] = {"sha256": sha256(file), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    head = {"stage": stage, "created": created, "seconds": seconds, "machine": machine(), "git_commit": git_commit()}
    write_json(record_path(run, stage), {**head, **made_from, "outputs": made})


def require(run: Run, *names: str) -> None:
    """Check that files of this run are there, unchanged since they were made, and made with this spec and these inputs.

    Raises:
        ArtifactError: names the file, what is wrong with it and the notebook that makes it.
    """
    for name in names:
        why = problem(run, MAKER[name], strict=False)
        if why := why or ("was not imported" if not run.file(name).exists() else None):
            raise ArtifactError(f"{run.file(name)}: {why}; {how_to_make(run, MAKER[name])}")


def problem(run: Run, stage: str, *, strict: bool = True) -> str | None:
    """Why a stage's files cannot be used as they stand, or None if they are current.

    With `strict=False` the code, the package versions and the image files may differ, and outside inputs may be absent:
    that is the question a later stage asks, perhaps on another machine. Strict is the question "would making it again
    change anything?".
    """
    run, record = _opened_for(run, stage), read_record(run, stage)
    if not record:
        exists = any(run.file(name).exists() for name in STAGES[stage].outputs)
        return "there is no record of this run making it" if exists else "does not exist yet"
    for name, facts in record["outputs"].items():
        if why := _damage(run.folder / name, facts):
            return why
    if record.get("imported_from"):
        belongs = {name: _input_sha256(run, name) for name in record.get("imported_for", ())}
        return None if belongs == record.get("imported_for", {}) else "it was imported for other images: import it again"
    for name in inputs_of(run, stage):
        if name in MAKER and (why := problem(run, MAKER[name], strict=False)):
            return f"made from {FILES[name].format(n=run.batch_size, d=run.spec.device)}, which is not current ({why})"
    now = key(run, stage, strict)
    # Where images or checkpoint are absent, as on a device host, nothing could be made again: it is as it was made.
    at_home = all(now["inputs"].get(name, "") is not None for name in ("source", "checkpoint"))
    return _difference(record, now, strict and at_home)


def forget(run: Run, stage: str) -> None:
    """Drop the record of a stage, so that it is made again."""
    record_path(run, stage).unlink(missing_ok=True)


def _damage(path: Path, facts: dict[str, Any]) -> str | None:
    if not path.exists():
        return f"{path.name} is missing"
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (facts.get("bytes"), facts.get("mtime_ns")):
        return None
    digest = sha256(path)
    if digest == facts["sha256"]:
        return None
    return f"{path.name} was changed after it was made (sha256 {digest[:8]}, the record says {facts['sha256'][:8]})"


def _difference(record: dict[str, Any], key: dict[str, Any], strict: bool) -> str | None:
    for name, now in key["spec"].items():
        if (then := record["spec"].get(name)) != now:
            return f"it is stale: made with {name}={then!r}, the spec now says {now!r}"
    for name, now in key["inputs"].items():
        if now != record["inputs"].get(name) and (strict or (now and name in record["inputs"])):  # `verify` drops them
            return f"it is stale: {name} changed since" if now else f"its input {name} is missing"
    if strict and key["code"] and record["code"] != key["code"]:
        return "the code that makes it changed"
    for name, now in key["packages"].items() if strict else ():
        if (then := record["packages"].get(name)) != now:
            return f"made with {name} {then}, now {now}"
    return None


def outputs(run: Run, stage: str) -> list[str]:
    """The names of the files that a stage makes with this spec."""
    backend = run.spec.backend_row
    left_out = {
        "images": run.spec.stream,
        "om": not backend.needs_om,
        "atc_log": not backend.needs_om,
        "aipp": run.spec.aipp is None,
        "tool_log": not backend.is_program,
        "perf_vision": run.spec.backend == "ais_bench",
    }
    return [name for name in STAGES[stage].outputs if not left_out.get(name)]


def inputs_of(run: Run, stage: str) -> list[str]:
    """The names of the inputs of a stage with this spec."""
    names: list[str] = []
    for entry in STAGES[stage].inputs:
        name = run.spec.backend_row.device_model if entry == "device_model" else entry
        if name == "images" and run.spec.stream:
            names += ["preprocess", "source"]
        elif name == "checkpoint" and run.spec.checkpoint == "demo":
            names.append("demo_checkpoint")
        elif name == "expected" and run.spec.checkpoint == "demo":
            names += ["expected", "demo"]
        else:
            names.append(name)
    return names


def key(run: Run, stage: str, strict: bool = True) -> dict[str, Any]:
    """What a stage's files depend on: spec keys, hashes of inputs and code, package versions."""
    row = STAGES[stage]
    spec = run.spec.model_dump(mode="json")
    backend = run.spec.backend_row
    packages = (backend.package if name == "backend" else name for name in row.packages)
    versions = {name: version_of(name) for name in packages if name}
    # A host without CANN, to which a run was copied back, has nothing to say about the OM's version.
    if stage == "convert" and backend.needs_om and (toolkit := cann.version()):
        versions["CANN"] = toolkit
        with contextlib.suppress(ToolError):  # without an answer the chip is not judged here
            if run.spec.soc_version is None and (report := npu_smi.info()):
                versions["chip"] = report.chips[min(run.spec.device, len(report.chips) - 1)].name
    # A copied folder has other file times: only the stage that reads images and labels asks for them.
    inputs = {name: _input_sha256(run, name) for name in inputs_of(run, stage) if strict or name not in ("source", "classes")}
    if stage == "convert":  # files that ATC's flags name, such as keep_dtype
        inputs |= {f"atc: {name}": sha256(path) for name, path in run.atc_files().items()}
    return {
        "spec": {name: spec[name] for name in row.keys},
        "inputs": inputs,
        "code": code_sha256(code_of(run, row.code)) if row.code else None,
        "packages": versions,
    }


def code_of(run: Run, code: tuple[str, ...]) -> tuple[str, ...]:
    """The files and folders of this package that `code` of the lineage names with this spec."""
    return tuple(path for entry in code for path in (run.spec.backend_row.code if entry == "backend" else (entry,)))


def _input_sha256(run: Run, name: str) -> str | None:
    """Hash of an input, None when it is not there. Images are told apart by name, size and time, not by content."""
    if name in MAKER:
        return hashes(run, MAKER[name]).get(run.relative(run.file(name)))
    if name == "expected":
        return fingerprint(expected_row(run))
    if name == "classes":
        return fingerprint(run.classes)
    if name == "checkpoint" and run.spec.checkpoint == "hub":
        return fingerprint(run.spec.model)
    if name == "source":
        return listing_sha256(run.image_folder, run.root / run.spec.labels if run.spec.labels else None)
    path = run.checkpoint if name == "checkpoint" else run.root / (run.spec.real_labels or "")
    return sha256(path) if path.is_file() else None


def per_batch(run: Run, stage: str, name: str) -> dict[int, dict[str, Any] | str]:
    """The JSON file `name` of every batch size of the run, or why it cannot be shown."""
    sizes = sorted({*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])})
    problems = {size: problem(run.at(size), stage, strict=False) for size in sizes}
    return {size: f"not shown: {why}" if why else run.at(size).read(name) for size, why in problems.items()}
