"""Where every file of a run lives, how it is opened by a notebook, and how its files are written and hashed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import ArtifactError
from .spec import RunSpec, check_batch_size

# Names of files as the helpers use them -> where they lie in the run folder. {n} is the batch size, {d} the device.
FILES = {
    "demo_images": "demo/images.csv",
    "demo_checkpoint": "demo/checkpoint.pth",
    "demo": "demo/demo.json",
    "onnx": "export/deit.onnx",
    "export": "export/export.json",
    "static_onnx": "bs{n}/deit_bs{n}.onnx",
    "optimize": "bs{n}/optimize.json",
    "convert": "bs{n}/convert.json",
    "om": "bs{n}/deit_bs{n}.om",
    "atc_log": "bs{n}/atc.log",
    "aipp": "bs{n}/aipp.cfg",
    "tool_log": "bs{n}/{backend}.log",
    "images": "dataset/images.npy",
    "index": "dataset/index.csv",
    "preprocess": "dataset/preprocess.json",
    "reference": "reference/logits.npy",
    "logits": "bs{n}/logits.npy",
    "latency": "bs{n}/latency.csv",
    "infer": "bs{n}/infer.json",
    "perf_vision": "bs{n}/perf_vision_batchsize_{n}_device_{d}.txt",
    "result": "bs{n}/result.json",
    "accuracy": "bs{n}/accuracy.json",
    "profile": "bs{n}/profile.csv",
    "perf": "bs{n}/perf.json",
}


@dataclass(frozen=True)
class Run:
    """An opened run: the validated spec, the folder of its files and the batch size (None for the cross-batch page)."""

    spec: RunSpec
    folder: Path
    root: Path
    batch_size: int | None = None

    def file(self, name: str) -> Path:
        """Path of a file of this run, by its name in FILES."""
        template = FILES[name]
        return self.folder / template.format(
            n=self.size if "{n}" in template else None, d=self.spec.device, backend=self.spec.backend
        )

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of this run.

        Raises:
            ArtifactError: it does not exist or is damaged.
        """
        value = read_json(self.file(name))
        if not value:
            raise ArtifactError(f"{self.file(name)}: missing or damaged; make it again with `deit-report run`")
        return value

    def relative(self, path: Path) -> str:
        """A path as it is written in records and reports: relative to the run folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    @property
    def size(self) -> int:
        """The batch size, where there must be one."""
        return check_batch_size(self.batch_size)

    def at(self, batch_size: int) -> Run:
        return replace(self, batch_size=check_batch_size(batch_size))

    def having(self, **keys: Any) -> Run:
        """The run with other values of some keys of its spec, which are not validated again."""
        return replace(self, spec=self.spec.model_copy(update=keys))

    @property
    def device_model(self) -> str:
        """What the backend loads: ATC's OM, torch's checkpoint, or the static graph itself."""
        if self.spec.backend == "torch":
            return "checkpoint"
        return "om" if self.spec.on_ascend else "static_onnx"

    @property
    def checkpoint(self) -> Path:
        if self.spec.checkpoint == "demo":
            return self.file("demo_checkpoint")
        return self.root / self.spec.checkpoint

    def atc_files(self) -> dict[str, Path]:
        """Files that flags of ATC name, relative to the folder the command runs in."""
        given = {name: self.root / value for name, value in self.spec.atc.items() if isinstance(value, str) and value}
        return {name: path.resolve() for name, path in given.items() if path.is_file()}

    @property
    def image_folder(self) -> Path:
        if self.spec.images == "demo":
            return self.folder / "demo" / "images"
        return self.root / self.spec.images


def open_run(spec: str | Path, batch_size: int | None = None) -> Run:
    """Open a run for a notebook, from the repository root or from `notebooks/` alike.

    Args:
        spec: a spec file, or the `spec.yaml` inside a run folder, which then is the run folder.
        batch_size: a positive integer, or None for the page across batch sizes.

    Raises:
        SpecError: a wrong spec or batch size.
        ArtifactError: the run folder cannot be written.
    """
    if batch_size is not None:
        check_batch_size(batch_size)
    root = project_root()
    path = root / spec if (root / spec).exists() else Path(spec)
    run_spec = RunSpec.load(path)
    folder = run_folder(path, run_spec)
    save_spec(run_spec, folder)
    return Run(run_spec, folder, root, batch_size)


def run_folder(spec_file: Path, spec: RunSpec) -> Path:
    """Where a run lives: the folder of its own `spec.yaml`, also after it was copied, else `reports/<run>`."""
    if spec_file.name == "spec.yaml" and (spec_file.parent / "meta").is_dir():
        return spec_file.parent.resolve()
    return (project_root() / "reports" / spec.run).resolve()


def save_spec(spec: RunSpec, folder: Path) -> None:
    """Write the resolved spec to the run folder's `spec.yaml`, unless it says the same already."""
    path = folder / "spec.yaml"
    write_dir(folder / "meta")  # also tells a run folder from a folder that merely holds a spec.yaml
    if not path.is_file() or path.read_bytes() != spec.to_yaml().encode():
        write_text(path, spec.to_yaml())


def project_root() -> Path:
    """The working directory, or its parent when that is a project's `notebooks` folder (as in Jupyter)."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "params").is_dir() else here


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it is flushed to disk and renamed to `path`, otherwise removed.

    Raises:
        ArtifactError: the file cannot be written (permission, disk full, a file where a folder should be).
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        if err.filename is not None and Path(err.filename).parent not in (path.parent, path.parent.parent):
            raise  # something the caller read, not what is written here
        raise unwritable(path, err) from err
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_dir(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        ArtifactError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise unwritable(path, err) from err


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty when the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def unwritable(path: Path, err: OSError) -> ArtifactError:
    """The error to raise when a file of a run cannot be written."""
    return ArtifactError(f"{path}: cannot be written ({err.strerror}); free or unlock what is in its way, or run elsewhere")
