"""Which images a spec means, and the label of each: class folders, or flat files and a label file."""

from __future__ import annotations

import csv
import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ArtifactError, SpecError
from ..run.folder import Run

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class Item(NamedTuple):
    """An image of the data set: `name` is its path below the image folder, with forward slashes."""

    name: str
    path: Path
    label: int


def list_images(run: Run) -> list[Item]:
    """All images the spec means, sorted by name, the first `limit` of them.

    With `labels`: the files of the folder, labelled by that file. Without: one folder per class; names that are ImageNet
    synsets get their ImageNet index, other names are numbered in sorted order.

    Raises:
        ArtifactError: no such folder, an empty one, or an image without a label.
        SpecError: a label file that cannot be read as one, or class folders of mixed kinds.
    """
    folder = run.image_folder
    if not folder.is_dir():
        raise ArtifactError(f"images: no such folder {folder}; set `images` to a folder of JPEG or PNG files")
    items = _flat_items(folder, run.root / run.spec.labels) if run.spec.labels else class_items(folder)
    if not items:
        raise ArtifactError(f"{folder}: no images ({', '.join(SUFFIXES)}) found; set `images` to a folder that holds some")
    return items[: run.spec.limit]


class ClassWords(dict[int, str]):
    """Class index -> its words; a class without any is called by its index."""

    def __missing__(self, index: int) -> str:
        return str(index)


def class_words(run: Run) -> ClassWords:
    """Words for class indices, where the class folders have names: ImageNet's words, or the folder's own name.

    Empty with a label file. Taken from the names in the store, so the images themselves need not be here.
    """
    if run.spec.labels:
        return ClassWords()
    folders = {int(label): name.partition("/")[0] for name, label in zip(*read_index(run), strict=True)}
    words = synset_names()
    return ClassWords({label: words.get(name, name).split(",")[0] for label, name in folders.items()})


def read_index(run: Run) -> tuple[list[str], np.ndarray]:
    """Names and labels (N,) of the images in the store, in order."""
    with run.file("index").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["name"] for row in rows], np.array([int(row["label"]) for row in rows])


def write_index(path: Path, items: list[Item]) -> None:
    """Write `name,label` rows; `read_index` reads them."""
    with path.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([("name", "label"), *((item.name, item.label) for item in items)])


@functools.cache
def synset_names() -> dict[str, str]:
    """ImageNet's 1000 synsets (ILSVRC 2012) in index order, each with its words from WordNet."""
    lines = Path(__file__).with_name("imagenet.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def class_items(folder: Path) -> list[Item]:
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not classes and any(_image_names(folder)):
        raise ArtifactError(f"{folder}: images lie in it directly, without labels: give `labels`, or one folder per class")
    synsets = [name for name in classes if re.fullmatch("n[0-9]{8}", name)]
    others = sorted({*classes} - {*synsets})
    if synsets and others:
        raise SpecError(f"{folder}: class folder {others[0]!r} is no ImageNet synset, but {synsets[0]!r} is; use one kind")
    indices = {name: i for i, name in enumerate(synset_names() if synsets else classes)}
    if unknown := next((name for name in classes if name not in indices), None):
        raise SpecError(f"{folder}: class folder {unknown!r} is none of ImageNet's 1000 synsets; remove or rename it")
    return [
        Item(f"{name}/{file}", folder / name / file, indices[name]) for name in classes for file in _image_names(folder / name)
    ]


def _flat_items(folder: Path, label_file: Path) -> list[Item]:
    labels = _read_labels(label_file)
    items = []
    for name in _image_names(folder):
        label = labels.get(name, labels.get(Path(name).stem))
        if label is None:
            raise ArtifactError(f"{folder / name}: no label for it in {label_file}; add the line `{name} LABEL`")
        items.append(Item(name, folder / name, label))
    return items


def _read_labels(path: Path) -> dict[str, int]:
    """Lines of `NAME LABEL`; the extension is optional, spaces or tabs, any line end, with or without a BOM."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise SpecError(f"labels: {path} cannot be read ({err}); give a text file of lines `NAME LABEL`") from err
    labels: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line:
            continue
        match = re.fullmatch(r"(.*\S)\s* ([0-9]{1,9})", line.replace("\t", " "))
        if not match:
            raise SpecError(f"{path}:{number}: expected `NAME LABEL` with LABEL a class index from 0, got {line!r}")
        name, label = match[1], int(match[2])
        if labels.setdefault(name, label) != label:
            raise SpecError(f"{path}:{number}: {name} already has label {labels[name]}: remove one of the lines")
    return labels


def _image_names(folder: Path) -> list[str]:
    entries = (entry for entry in os.scandir(folder) if not entry.name.startswith("."))
    return sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir())


def check_labels(names: list[str], labels: np.ndarray, classes: int) -> None:
    """Raise a SpecError that names the first image whose label is no class of the model."""
    outside = np.flatnonzero(labels >= classes)
    if len(outside):
        i = outside[0]
        raise SpecError(f"labels: {names[i]} has label {labels[i]}, the model has classes 0 to {classes - 1}: mend the labels")
