"""`deit-report pack`: a run folder in one file, to carry to a device host; with `--audit` the small file `verify` takes.

In the small file, answers stand for logits: the five best classes of every image, of the reference and of each batch size.
Timings are kept to the last digit, the bytes of their nanoseconds in planes, which halves them. Nothing is rounded.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..errors import ArtifactError
from ..metrics import latency
from ..metrics.classification import TOP, among, ranking
from ..report import html
from ..run.expected import rows_file, valid_classes
from ..run.folder import DEMO_IMAGES, Run
from ..run.spec import RunSpec

LEFT_OUT = DEMO_IMAGES  # the store has what 05 reads of them
MOST_BYTES = 2_000_000
CONTENTS = "audit.json"  # of the small file: what was left out of it, and its bytes
ANSWERS, TICKS = ".answers.npz", ".ticks.npy"  # added to the name of what they stand for: logits.npy, latency.csv
# What goes in while there is room: what figures are computed from, then pages, then the rest.
_PAGES = ("index.html", "accuracy.html", ".html")
_ORDER = (".yaml", ".json", "index.csv", ANSWERS, TICKS, ".ipynb", *_PAGES, ".csv", ".txt", ".cfg")


def pack(folder: Path, output: Path) -> Path:
    """Write `output`, a gzipped tar with the folder as its one top entry; unpack it anywhere and run its `spec.yaml`.

    Raises:
        SpecError: the folder's `spec.yaml` is no spec.
        ArtifactError: the file cannot be written, or the folder holds something that is no file.
    """

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.isdev():
            raise ArtifactError(f"{folder.parent / entry.name}: is no plain file: remove it from the run folder")
        unwanted = (".lock", ".tar.gz", ".tar.xz", "/run.log", "/report.zip")
        hidden = Path(entry.name).name.startswith(".tmp-") or entry.name.endswith(unwanted)
        inside = entry.name.partition("/")[2]
        return None if hidden or f"{inside}/".startswith(f"{LEFT_OUT}/") else entry

    RunSpec.load(folder / "spec.yaml")
    with (
        files.atomic(output.resolve()) as temporary,
        # what links point to is packed: on another host they would point nowhere
        tarfile.open(temporary, "w:gz", compresslevel=1, dereference=True) as archive,
    ):
        archive.add(folder, arcname=folder.name, filter=chosen)
    return output


def pack_audit(run: Run, output: Path) -> dict[str, int]:
    """Write `output`, a tar of at most MOST_BYTES, compressed by xz: what can be checked of a run, as far as there is room.

    Returns:
        The files of the run that are not in it, with their bytes; of logits only the answers are.

    Raises:
        ArtifactError: the file cannot be written, or one of the run cannot be read.
    """
    stored = {run.relative(path): path for path in sorted(run.folder.rglob("*")) if path.is_file() and path.suffix != ".lock"}
    try:
        entries = dict(entry for path in stored.values() if (entry := _entry(run, path)))
    except (ValueError, LookupError) as err:
        raise ArtifactError(f"{run.folder}: a damaged file ({err}): `deit-report verify` names it") from err
    chosen, room = dict[str, bytes](), MOST_BYTES - 20_000  # for names and headers
    for name in sorted(entries, key=lambda name: (_rank(name), len(entries[name]))):
        if (size := len(lzma.compress(entries[name]))) <= room:
            chosen, room = chosen | {name: entries[name]}, room - size
        elif _rank(name) <= _rank(ANSWERS):
            raise ArtifactError(
                f"{run.folder}: {name} does not fit into {MOST_BYTES:,} bytes: carry it with `deit-report pack`"
            )
    left_out = {name: path.stat().st_size for name, path in stored.items() if not {name, name + TICKS} & chosen.keys()}
    content = {CONTENTS: json.dumps(left_out).encode(), "params/expected.yaml": rows_file(run).read_bytes()}
    content |= {f"{run.folder.name}/{name}": chosen[name] for name in chosen}
    with files.atomic(output.resolve()) as temporary, tarfile.open(temporary, "w:xz", preset=9) as archive:
        for name, data in content.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return left_out


def _rank(name: str) -> int:
    return next(i for i, end in enumerate(_ORDER) if name.endswith(end))


def _entry(run: Run, path: Path) -> tuple[str, bytes] | None:
    """Name and content of what stands for a file of the run; None where nothing does."""
    name = run.relative(path)
    if path.name == "logits.npy":
        best, classes = _best(run, path)
        if (reference := run.file("reference")).exists() and path != reference:  # all but a few are the same: zeros
            best ^= _best(run, reference)[0]
        np.savez(packed := io.BytesIO(), best=best, classes=classes)
        return name + ANSWERS, packed.getvalue()
    if not name.endswith(_ORDER):
        return None
    content = path.read_bytes()
    if path.name == "latency.csv" and (ticks := _ticks(content)):
        return name + TICKS, ticks
    if path.suffix == ".ipynb":
        import nbformat

        node = html.read(path)
        for output in (output for cell in node.cells for output in cell.get("outputs", []) if "data" in output):
            output["data"] = dict.fromkeys(output["data"], "")  # on the page; here only that there was one
        content = nbformat.writes(node).encode()
    return name, content


def _best(run: Run, path: Path) -> tuple[np.ndarray, int]:
    """The classes (5, N) that answer each image best, the best first, and how many classes there are."""
    logits = among(np.load(path, mmap_mode="r"), valid_classes(run))
    classes = logits.shape[1]
    return ranking(logits, max(TOP)).T.astype(np.min_scalar_type(classes)), classes


def _ticks(text: bytes) -> bytes | None:
    """`latency.csv` as the bytes of its nanoseconds, the high ones together; None where a vendor's tool did not time all."""
    import pandas as pd

    table = pd.read_csv(io.BytesIO(text))
    if table.isna().to_numpy().any():
        return None
    spans = np.rint(1e6 * table[[f"{span}_ms" for span in latency.TIMINGS]].to_numpy().T)
    ticks = np.vstack([table["images"], spans]).astype("<i8")
    np.save(packed := io.BytesIO(), np.ascontiguousarray(ticks.reshape(-1, 1).view(np.uint8).T))
    return packed.getvalue()


def _write_latency(ticks: Path) -> None:
    images, *spans = np.ascontiguousarray(np.load(ticks).T).view("<i8").reshape(1 + len(latency.TIMINGS), -1)
    columns: dict[str, Any] = {name: span / 1e6 for name, span in zip(latency.TIMINGS, spans, strict=True)}
    latency.write_latency(ticks.with_name(ticks.name.removesuffix(TICKS)), images, columns)


def unpack(path: Path, place: Path) -> tuple[Path, dict[str, int]]:
    """Unpack a file of `pack` or `pack_audit` into a folder; returns the run folder and what was left out of the small file.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            archive.extractall(place, filter="data")
        (spec,) = place.glob("*/spec.yaml")
        for ticks in spec.parent.rglob(f"*{TICKS}"):
            _write_latency(ticks)
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as err:
        raise ArtifactError(f"{path}: no file that `deit-report pack` wrote, or damaged ({err}); pack the run again") from err
    left_out = files.read_json(place / CONTENTS)
    for page in ((spec.parent / name).resolve() for name in left_out if name.endswith(".html")):
        if page.is_relative_to(place):  # a stranger may have written any name
            page.touch()  # links to it stand on other pages
    return spec.parent, left_out


def stand_in(folder: Path, seed: int) -> None:
    """Write logits with the answers of an unpacked small file; how far they lie apart is drawn with the seed."""
    reference = None
    for i, path in enumerate(sorted(folder.rglob(f"*{ANSWERS}"), key=lambda path: path.parent.name != "reference")):
        with np.load(path) as packed:
            best, classes = packed["best"], int(packed["classes"])
        best = best if reference is None else best ^ reference
        reference = best if path.parent.name == "reference" else reference
        steps = np.random.default_rng([seed, i]).uniform(0.5, 2, best.shape)
        logits = np.zeros((best.shape[1], classes), np.float32)
        np.put_along_axis(logits, best.T.astype(np.intp), np.cumsum(steps, axis=0)[::-1].T.astype(np.float32), axis=1)
        np.save(path.with_name(path.name.removesuffix(ANSWERS)), logits)
