"""Which images a spec means, and the label of each: class folders, or a label file."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ArtifactError, SpecError
from ..files import read_json
from ..run.folder import Run
from .classes import IMAGENET, OFFICIAL, class_indices, synset_names
from .labels import OF_VALIDATION, labels_of, lines_of
from .transforms import SUFFIXES

_HELD_OUT = ("val", "validation", "valid", "test")  # folders that stand beside `train`, the best to measure on first


class Listing(NamedTuple):
    """What an image folder holds: all images, its class folders, and the files and folders that are not used.

    All are paths below the folder with forward slashes; those of folders in `left_out` end in a slash.
    """

    names: list[str]
    folders: list[str]
    left_out: list[str]


def list_folder(run: Run) -> Listing:
    """The images of the spec's folder: those of its folders, one for each class, or with `labels` also its own.

    Raises:
        ArtifactError: no such folder, one without images, or one whose images lie elsewhere; the message says where.
    """
    folder = run.image_folder
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        raise ArtifactError(f"images: no such folder {folder}; set `images` to a folder of JPEG or PNG files")
    images, folders, left_out = _scan(folder)
    left_out = [name for name in left_out if not run.spec.labels or folder / name != run.root / run.spec.labels]
    if run.spec.labels and images:
        return Listing(images, [], [*(f"{name}/" for name in folders), *left_out])
    left_out += images
    names: list[str] = []
    for name in folders:
        inside, deeper, others = _scan(folder / name)
        names += [f"{name}/{image}" for image in inside]
        unused = [*(f"{entry}/" for entry in deeper), *others]
        left_out += [f"{name}/{entry}" for entry in unused or ([] if inside else [""])]
    if "train" in folders and (held_out := next((name for name in _HELD_OUT if name in folders), None)):
        raise ArtifactError(f"{folder}: its folders are parts of a data set, not classes: set `images` to {folder / held_out}")
    if not names:
        raise _no_images(folder, images, folders)
    return Listing(names, folders, left_out)


def list_images(run: Run, listing: Listing | None = None) -> list[str]:
    """Names of the images the spec means: all of its folder, or `limit` of them spread over the labels.

    Which class a label stands for is not asked: 01, before which nobody may know, takes the same images as 04.

    Raises:
        ArtifactError: as `list_folder`, or an image without a label.
        SpecError: a label file that cannot be read.
    """
    names, limit = (listing or list_folder(run)).names, run.spec.limit
    if limit is None or limit >= len(names):
        return names
    return [names[i] for i in spread(written_labels(run, names), limit, run.spec.limit_seed)]


def written_labels(run: Run, names: list[str]) -> list[str]:
    """The label of each of these images, which are all of the run's, as written: in the label file, or the folder's name."""
    return [line.label for line in lines_of(run, names)[1]] if run.spec.labels else [name.split("/")[0] for name in names]


def are_synsets(run: Run, labels: dict[str, int]) -> bool:
    """Whether the labels, index by name of all images, are written as synsets, each of which has its index in ImageNet."""
    synsets, written = list(synset_names()), written_labels(run, [*labels])
    return all(synsets[index : index + 1] == [text] for index, text in zip(labels.values(), written, strict=True))


def spread(labels: list[str], count: int, seed: int) -> list[int]:
    """Which `count` of these (N,) labels to take, in order: of each label as large a share as it has of all.

    What is left of whole shares goes to the largest remainders (Hamilton's method). Lots are drawn with the seed between
    equal remainders, and among the images of a label.
    """
    _, of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(seed)
    shares, remainders = np.divmod(count * sizes, len(labels))
    shares[np.lexsort((generator.permutation(len(sizes)), -remainders))[: count - shares.sum()]] += 1
    shuffled = np.lexsort((generator.permutation(len(labels)), of))  # label after label
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return sorted(shuffled[place < np.repeat(shares, sizes)].tolist())


def label_images(run: Run, listing: Listing, classes: int | None) -> dict[str, int]:
    """Name -> class index of all images of the folder, by the label file or by the folder they lie in.

    Args:
        classes: how many the checkpoint has, and no label may lie outside; None before 01.

    Raises:
        ArtifactError: an image without a label.
        SpecError: a label file that cannot be read as one, class folders of mixed kinds, or whose order is not clear.
    """
    names = listing.names
    if run.spec.labels:
        labels = labels_of(run, names, classes)
    else:
        of = [name.partition("/")[0] for name in names]
        odd = classes is not None and len(listing.folders) > classes  # an archive's folder without images is no class
        folders = sorted({*of}) if odd else listing.folders
        indices = class_indices(folders, classes, run.spec.class_order, f"{run.image_folder}: class folder")
        labels = [indices[folder] for folder in of]
    if classes is not None:
        check_labels(run, names, np.array(labels), classes)
    return dict(zip(names, labels, strict=True))


class ClassWords(dict[int, str]):
    """Class index -> its words; a class without any is called by its index."""

    def __missing__(self, index: int) -> str:
        return str(index)


def class_words(run: Run) -> ClassWords:
    """Words for class indices: ImageNet's, where the labels are its indices, or the class folders' own names.

    Empty with a label file of any other images. Taken from the files of 04, so the images need not be here. The classes of a
    head of 1000 are ImageNet's where its images, their labels or the checkpoint's origin say so.
    """
    names, labels = read_index(run)
    facts, checkpoint, imagenet = read_json(run.file("preprocess")), run.spec.checkpoint, synset_names()
    says_so = facts.get("dataset") or facts.get("synsets")
    if run.spec.labels and not says_so:
        official = checkpoint == "hub" or OFFICIAL.fullmatch(Path(checkpoint).name)  # timm's and Meta's heads of 1000
        says_so = official or all(map(OF_VALIDATION.search, names))
    if (run.classes == IMAGENET and says_so) or (facts.get("synsets") and not run.spec.labels):
        return ClassWords({index: words.split(",")[0] for index, words in enumerate(imagenet.values())})
    folders = {} if run.spec.labels else {int(i): name.partition("/")[0] for name, i in zip(names, labels, strict=True)}
    return ClassWords({index: imagenet.get(name, name).split(",")[0] for index, name in folders.items()})


def read_index(run: Run) -> tuple[list[str], np.ndarray]:
    """Names and labels (N,) of the images in the store, in order."""
    with run.file("index").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["name"] for row in rows], np.array([int(row["label"]) for row in rows])


def write_index(path: Path, labels: dict[str, int]) -> None:
    """Write `name,label` rows; `read_index` reads them. Bytes of a name that are no UTF-8 are written as they are."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as text:
        csv.writer(text).writerows([("name", "label"), *labels.items()])


def check_labels(run: Run, names: list[str], labels: np.ndarray, classes: int) -> None:
    """Raise a SpecError that names the first image whose label is no class of the model, and what gave it that label."""
    outside = np.flatnonzero(labels >= classes)
    if not len(outside):
        return
    i = outside[0]
    folder = names[i].partition("/")[0]
    todo = f"mend {run.spec.labels}"
    if not run.spec.labels:
        todo = f"its folder {folder!r} says so: remove what is no class, or set class_order or `labels`"
    elif labels.min() > 0 and labels.max() == classes and not run.spec.labels_format:
        todo += ", or set labels_format: from_1, or devkit where they are ids of ILSVRC's devkit; none of them is 0"
    raise SpecError(f"labels: {names[i]} has label {labels[i]}, the model has classes 0 to {classes - 1}: {todo}")


def _scan(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the images of a folder, of its folders, and of what is neither or hidden, each sorted."""
    images, folders, others = list[str](), list[str](), list[str]()
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            plain = entry.is_file() or entry.is_symlink()  # a pipe would be waited for; a broken link is a damaged image
            is_image = plain and entry.name.lower().endswith(SUFFIXES)
            kind = folders if entry.is_dir() else images if is_image else others
            (others if entry.name.startswith(".") else kind).append(entry.name)
    except OSError as err:
        raise ArtifactError(f"{err.filename or folder}: cannot be listed ({err.strerror}); unlock or remove it") from err
    return images, folders, others


def _no_images(folder: Path, images: list[str], folders: list[str]) -> ArtifactError:
    """The error for a folder whose class folders hold none: where they lie instead, as far as a look one level deeper tells."""
    if images:
        return ArtifactError(f"{folder}: images lie in it directly, without labels: give `labels`, or one folder per class")
    deeper = [(name, inside) for name in folders for inside in _scan(folder / name)[1] if _scan(folder / name / inside)[0]]
    if not deeper:
        suffixes = ", ".join(SUFFIXES)
        return ArtifactError(f"{folder}: no images ({suffixes}) found; set `images` to a folder that holds some")
    name, inside = deeper[0]
    lie = f"{folder}: no images in its folders, but in {name}/{inside}"
    if len({inside for _, inside in deeper}) == 1 and len(deeper) > 1:
        return ArtifactError(f"{lie} and the like: move them up into their class folders")
    return ArtifactError(f"{lie}: set `images` to {folder / name}")
