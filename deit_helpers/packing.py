"""`deit-report pack`: a run folder in one file, to carry to a device host."""

from __future__ import annotations

import tarfile
from pathlib import Path

from . import artifacts

LEFT_OUT = "demo/images"  # the store has what 05 reads of them


def pack(folder: Path, output: Path) -> Path:
    """Write `output`, a gzipped tar with the folder as its one top entry; unpack it anywhere and run its `spec.yaml`.

    Raises:
        ArtifactError: the file cannot be written.
    """

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = entry.name.partition("/")[2]
        hidden = Path(entry.name).name.startswith(".tmp-") or entry.name.endswith(".lock")
        return None if hidden or f"{inside}/".startswith(f"{LEFT_OUT}/") else entry

    with artifacts.atomic(output.resolve()) as temporary, tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=folder.name, filter=chosen)
    return output
