"""`deit-report pack`: a run folder in one file, to carry to a device host."""

from __future__ import annotations

import tarfile
from pathlib import Path

from .. import files
from ..errors import ArtifactError
from ..run.folder import DEMO_IMAGES
from ..run.spec import RunSpec

LEFT_OUT = DEMO_IMAGES  # the store has what 05 reads of them


def pack(folder: Path, output: Path) -> Path:
    """Write `output`, a gzipped tar with the folder as its one top entry; unpack it anywhere and run its `spec.yaml`.

    Raises:
        SpecError: the folder's `spec.yaml` is no spec.
        ArtifactError: the file cannot be written, or the folder holds something that is no file.
    """

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.isdev():
            raise ArtifactError(f"{folder.parent / entry.name}: is no plain file: remove it from the run folder")
        hidden = Path(entry.name).name.startswith(".tmp-") or entry.name.endswith((".lock", ".tar.gz", "/run.log"))
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
