"""04_preprocess: images and labels -> `dataset/images.npy` (uint8), `index.csv`, `preprocess.json`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..ascend import benchmark
from ..data.batches import crops_at, npy_header, progress
from ..data.datasets import recognised
from ..data.prefetch import mapped
from ..data.sources import are_synsets, label_images, list_folder, list_images, write_index
from ..data.transforms import SUFFIXES, crop, decode, quiet_pillow, tensors
from ..errors import ArtifactError
from ..run import hashing
from ..run.folder import Run
from ..run.host import cores
from ..run.records import makes

FINGERPRINT_IMAGES = 8
MOST_NAMED = 20  # of each kind of file that is not used


@makes("preprocess")
def preprocess(run: Run) -> dict[str, Any]:
    """Stage 04: decode, resize and crop every image of the spec into the uint8 store; returns the content of `preprocess.json`.

    Raises:
        ArtifactError: no images, a damaged image (unless `on_bad_image: skip`), an image without a label.
        SpecError: labels that are not clear, or outside the checkpoint's classes.
    """
    listing, recipe = list_folder(run), run.spec.recipe
    labels, images = label_images(run, listing, run.classes), list_images(run, listing)
    # With `stream` 05 decodes; here only what the images are, and the fingerprint of the first.
    kept, skipped = (images, list[dict[str, str]]()) if run.spec.stream else _write_store(run, images)
    with files.atomic(run.file("index")) as temporary:
        write_index(temporary, {name: labels[name] for name in kept})
    head = crops_at(run, list(range(min(FINGERPRINT_IMAGES, len(kept)))))
    if run.spec.bins:
        rows = (tensors(crops_at(run, [i]), recipe)[0] for i in range(len(kept)))
        benchmark.write_info(run.file("images").parent, kept, rows)
    return {
        "images": len(kept),
        "listed": len(listing.names),
        "dataset": recognised(listing.names),
        "label_classes": sorted(set(labels.values())),
        "synsets": are_synsets(run, labels),
        "skipped": skipped,
        "left_out": _kinds(listing.left_out),
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": hashlib.sha256(tensors(head, recipe).tobytes()).hexdigest(),
        "fingerprint_images": len(head),
    }


def _kinds(left_out: list[str]) -> list[dict[str, Any]]:
    """Files and folders that are not used, by kind: how many, and the names of the first."""
    kinds: dict[str, list[str]] = {}
    for name in left_out:
        file = Path(name)
        kind = "folder" if name.endswith("/") else "hidden" if file.name.startswith(".") else file.suffix.lower() or "no suffix"
        if kind in SUFFIXES:
            kind += " beside the class folders"
        kinds.setdefault(kind, []).append(name)
    return [{"kind": kind, "count": len(names), "names": names[:MOST_NAMED]} for kind, names in sorted(kinds.items())]


def _write_store(run: Run, names: list[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Write the store in order and in constant memory; its header gets the final count at the end.

    Returns the images that are in it, and those that were skipped with the reason.
    """
    recipe = run.spec.recipe
    kept: list[str] = []
    skipped: list[dict[str, str]] = []

    def load(name: str) -> np.ndarray | ArtifactError:
        try:
            return crop(decode(run.image_folder / name), recipe)
        except ArtifactError as err:
            return err

    def header(count: int) -> bytes:
        return npy_header("|u1", (count, recipe.crop_px, recipe.crop_px, 3))

    digest = hashlib.sha256(header(len(names)))  # meanwhile: reading it all again would leave all cores but one idle
    with files.atomic(run.file("images")) as temporary, temporary.open("wb") as file:
        file.write(header(len(names)))
        with quiet_pillow(), progress(len(names)) as bar:
            for name, pixels in zip(names, mapped(load, names, cores()), strict=True):
                bar.update()
                if isinstance(pixels, np.ndarray):
                    kept.append(name)
                    file.write(pixels.data)
                    digest.update(pixels.data)
                elif run.spec.on_bad_image == "stop":
                    raise pixels
                else:
                    skipped.append({"name": name, "reason": str(pixels)})
        if not kept:
            raise ArtifactError(f"{run.image_folder}: none of its {len(names)} images can be decoded")
        file.seek(0)
        file.write(header(len(kept)))
    if not skipped:  # else the header is another one
        hashing.remember(run.file("images"), digest.hexdigest())
    return kept, skipped
