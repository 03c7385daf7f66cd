"""Which class index a name stands for: an ImageNet synset, an id of its devkit, or a class folder in some order."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from ..errors import SpecError, one_line

IMAGENET = 1000
SYNSET = re.compile("n[0-9]{8}")
# Checkpoints that facebookresearch/deit trained on ImageNet's 1000 classes, by the names it gives its files.
OFFICIAL = re.compile(r"deit_(tiny|small|base)_(distilled_)?patch16_(224|384)-[0-9a-f]{8}\.pth")


@functools.cache
def _imagenet() -> list[list[str]]:
    """ImageNet's 1000 classes (ILSVRC 2012) in index order: synset, words from WordNet, id in the devkit.

    The devkit's order, 1 kit fox to 1000 dumbbell, is that of its `meta.mat` and `map_clsloc.txt`. It was checked against
    the devkit's ground truth of validation images whose index is known from other label files.
    """
    lines = Path(__file__).with_name("imagenet.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def synset_names() -> dict[str, str]:
    """ImageNet's 1000 synsets in index order, each with its words."""
    return {synset: words for synset, words, _ in _imagenet()}


@functools.cache
def devkit_indices() -> dict[int, int]:
    """Id in the devkit, 1 to 1000 -> class index."""
    return {int(number): index for index, (_, _, number) in enumerate(_imagenet())}


def class_indices(names: list[str], classes: int | None, order: str | None, where: str) -> dict[str, int]:
    """The class index of each of these names, which are sorted: class folders, or the synsets of a label file.

    Args:
        classes: how many the checkpoint has; None before 01.
        order: `class_order` of the spec. Without it, synsets get their ImageNet index and other names are numbered as they
            are sorted, where that is the only sensible reading.
        where: what has these names, for messages, such as `photos: class folder`.

    Raises:
        SpecError: the names do not say which class they are, or are not what `order` says.
    """
    order = order or _only_order(names, classes, where)
    if order == "synset":
        known = {name: index for index, name in enumerate(synset_names())}
        if unknown := next((name for name in names if name not in known), None):
            hint = "remove or rename it, or set class_order: text"
            raise SpecError(f"{where} {unknown!r} is none of ImageNet's 1000 synsets; {hint}")
        return {name: known[name] for name in names}
    if order == "numeric":
        numbers = _numbers(names)
        if len({*numbers.values()}) < len(names):
            some = one_line(", ".join(map(repr, names[:3])))
            raise SpecError(f"{where}s such as {some}: class_order: numeric needs a number in each, and no number twice")
        names = sorted(names, key=numbers.__getitem__)
        if classes is None and sorted(numbers.values()) != list(range(len(names))):
            raise SpecError(f"{where}s: class_order: numeric depends on the checkpoint: run notebooks/01_export.ipynb first")
        if classes is not None and len(names) < classes:
            return numbers
    return {name: place for place, name in enumerate(names)}


def _only_order(names: list[str], classes: int | None, where: str) -> str:
    """The order of names that leave no choice."""
    synsets = [name for name in names if SYNSET.fullmatch(name)]
    if synsets and (others := [name for name in names if not SYNSET.fullmatch(name)]):
        raise SpecError(f"{where} {others[0]!r} is no ImageNet synset, but {synsets[0]!r} is; use one kind")
    if synsets and len(names) != classes and classes in (None, IMAGENET):
        return "synset"
    by_number = sorted(names, key=_natural)
    if text := next((name for name, other in zip(names, by_number, strict=True) if name != other), None):
        number, text = one_line(by_number[names.index(text)], 40), one_line(text, 40)
        choice = f"numeric ({number} before {text}) or text ({text} first, as torchvision's ImageFolder has it)"
        raise SpecError(f"{where}s are numbered, and their order is not clear: set class_order: {choice}")
    if classes is not None and len(names) < classes:
        synset = "synset, " if classes == IMAGENET else ""
        choice = f"numeric (207 is class 207), {synset}or text (0, 1, 2 … as they are sorted)"
        what = f"{where}s: {len(names)} for the checkpoint's {classes} classes, and which is which is not clear"
        raise SpecError(f"{what}: set class_order: {choice}, or give `labels`, a file of lines `FOLDER CLASS`")
    return "text"


def _numbers(names: list[str]) -> dict[str, int]:
    """Name -> the first number in it, such as 7 in `7`, `007`, `class_7` or `7.cat`, where every name has one."""
    matches = {name: re.search("[0-9]{1,9}", name) for name in names}
    return {name: int(match[0]) for name, match in matches.items() if match} if all(matches.values()) else {}


def _natural(name: str) -> list[str | int]:
    """What sorts names with numbers as people do: text and numbers in turn."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]{1,9})", name))]
