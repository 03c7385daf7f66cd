"""A label file -> the class index of every image. Many tools' files are read as they are; where two readings are possible
the run stops."""

from __future__ import annotations

import codecs
import csv
import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from ..errors import ArtifactError, SpecError, one_line
from ..run.folder import Run
from .classes import SYNSET, class_indices, devkit_indices
from .transforms import SUFFIXES

_LABEL = re.compile(f"[0-9]{{1,9}}|{SYNSET.pattern}")
OF_VALIDATION = re.compile(r"ILSVRC2012_val_0*(\d{1,8})\.[A-Za-z]+$")
_MOST_BYTES = 1 << 28  # ImageNet's largest, LOC_train_solution.csv, has 60 MB
_MOST_IN_LINE = 20_000  # characters: all boxes of an image
_COMPARED = 20_000  # so many lines are looked through for the nearest one


class Line(NamedTuple):
    """A line of a label file. `name` is empty in a bare column of labels; `label` is a number or a synset."""

    number: int
    name: str
    label: str


def labels_of(run: Run, names: list[str], classes: int | None) -> list[int]:
    """The class index of each of these images, by the label file of the run's spec. Raises as `lines_of`, and for labels
    that cannot be read as the spec says."""
    path, said = run.root / str(run.spec.labels), run.spec.labels_format
    lines, matches = lines_of(run, names)
    written = {line.label: line.number for line in reversed(lines)}
    synsets = sorted(filter(SYNSET.fullmatch, written))
    indices = class_indices(synsets, classes, run.spec.class_order, f"{path}: label") if synsets else {}
    devkit = devkit_indices()
    for label in (label for label in written if label not in indices):
        index = devkit.get(int(label), -1) if said == "devkit" else int(label) - (said == "from_1")
        if index < 0:
            raise SpecError(f"{path}:{written[label]}: {label} is no label of labels_format: {said}: mend one of them")
        indices[label] = index
    return [indices[line.label] for line in matches]


def lines_of(run: Run, names: list[str]) -> tuple[list[Line], list[Line]]:
    """All lines of the label file of a run's spec, and the line of each of these images, which are all of the run's.

    An image's line is the one with its name, its name without the extension, or the name of its folder; failing that, the
    one line that has its name but for leading folders, the extension, case and the form of Unicode.

    Raises:
        SpecError: no label file, or one that cannot be read.
        ArtifactError: an image without a line of its own; the message quotes the nearest.
    """
    path, said = run.root / str(run.spec.labels), run.spec.labels_format
    lines = _read(path)
    if lines and not lines[0].name:  # a bare column: line i is the i-th image by name
        if said is None:
            kinds = "devkit (ILSVRC's ids 1 to 1000, as in ILSVRC2012_validation_ground_truth.txt), from_1 or index"
            hint = f"set labels_format: {kinds}; line i is then the i-th image by name"
            raise SpecError(f"{path}: labels without names: {hint}")
        if len(lines) != len(names):
            raise SpecError(f"{path}: {len(lines)} labels without names for {len(names)} images: give a line for each image")
        return lines, lines
    exact: dict[str, Line] = {}
    for line in lines:
        if exact.setdefault(line.name, line).label.lstrip("0") != line.label.lstrip("0"):
            before = f"{line.name} already has label {exact[line.name].label}"
            raise SpecError(f"{path}:{line.number}: {before}: remove one of the lines")
    matches = [exact.get(name) or exact.get(name.rpartition(".")[0]) or exact.get(name.rpartition("/")[0]) for name in names]
    if None in matches:
        matches = _loose(names, matches, lines)
    if None in matches:
        name = names[matches.index(None)]
        raise ArtifactError(f"{run.image_folder / name}: no label for it in {path}; {_what_to_do(name, lines)}")
    return lines, [line for line in matches if line]


def real_labels(run: Run, names: list[str]) -> list[list[int]]:
    """The right classes of each of these images of ImageNet's validation set, by the spec's `real_labels`: the file real.json
    of Beyer et al. (2020), arXiv 2006.07159, a list in the order of the set. Of some images no class is right.

    Raises:
        SpecError: it is no such file.
        ArtifactError: an image that is none of the validation set.
    """
    path = run.root / str(run.spec.real_labels)
    try:
        right = TypeAdapter(list[list[int]]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as err:
        why = err.strerror if isinstance(err, OSError) else "{msg} at {loc}".format_map(err.errors()[0])
        raise SpecError(
            f"real_labels: {path}: {one_line(str(why))}; expected ReaL's real.json, a list of classes for each image"
        ) from err
    rows = []
    for name in names:
        number = int(match[1]) if (match := OF_VALIDATION.search(name)) else 0
        if not 0 < number <= len(right):
            raise ArtifactError(f"{name}: none of the {len(right)} images of {path}: real_labels is of ILSVRC2012_val alone")
        rows.append(right[number - 1])
    return rows


def _read(path: Path) -> list[Line]:
    """The lines of a label file: `NAME LABEL` divided by a comma, semicolon, tab or spaces; or labels alone.

    LABEL is a number or a synset. A header is passed over, and what follows a synset: Kaggle's and Tiny ImageNet's boxes.

    Raises:
        SpecError: no such file, no text, or a line that is none of these.
    """
    texts = [(number, text) for number, text in enumerate(map(str.strip, re.split("\r\n?|\n", _text(path))), 1) if text]
    if len(texts) > 1 and _is_header(texts[0][1]):
        del texts[0]
    if all(_LABEL.fullmatch(text) for _, text in texts):
        return [Line(number, "", text) for number, text in texts]
    lines = []
    for number, text in texts:
        fields = _fields(text)
        if fields is None:
            expected = "expected `NAME LABEL` with LABEL a class index from 0"
            raise SpecError(f"{path}:{number}: {expected} or a synset, got {one_line(repr(text))}")
        lines.append(Line(number, *fields))
    return lines


def _text(path: Path) -> str:
    """UTF-8 with or without a BOM, or UTF-16 with one; in names other bytes are kept, as in those of files."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")  # a pipe would be waited for
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16") if wide else content.decode("utf-8-sig", "surrogateescape")
        if "\0" in text:
            raise ValueError("it is no text")
    except (OSError, ValueError) as err:
        why = err.strerror if isinstance(err, OSError) else err
        raise SpecError(f"labels: {path} cannot be read ({why}); give a text file of lines `NAME LABEL`") from err
    return text


def _is_header(text: str) -> bool:
    """Whether a first line holds words alone: no digit, no extension, no path."""
    return _fields(text) is None and re.fullmatch(r"[^\W\d]+([\s,;\"#-]+[^\W\d]+)*", text.strip(' "#')) is not None


def _fields(text: str) -> tuple[str, str] | None:
    """Name and label of a line, or None."""
    if len(text) > _MOST_IN_LINE:
        return None
    for delimiter in (mark for mark in "\t,;" if mark in text):
        fields = [field.strip() for field in next(csv.reader([text], delimiter=delimiter)) if field.strip()]
        label = fields[1].split() if len(fields) > 1 else [""]
        if SYNSET.fullmatch(label[0]) or (len(fields) == 2 and len(label) == 1 and _LABEL.fullmatch(label[0])):
            return fields[0], label[0]
    name, _, last = text.replace("\t", " ").rpartition(" ")
    return (name.rstrip(" :").strip('"'), last) if name and _LABEL.fullmatch(last) else None


def _loose(names: list[str], matches: list[Line | None], lines: list[Line]) -> list[Line | None]:
    """Fill in the images without a line by the names alone, where one label and one image fit each other."""
    for parts in (2, 1):
        fits = defaultdict[str, dict[str, Line]](dict)
        for line in lines:
            fits[_plain(line.name, parts)].setdefault(line.label, line)
        plain = [_plain(name, parts) for name in names]
        images = Counter(plain)
        for i, text in enumerate(plain):
            if matches[i] is None and images[text] == 1 and len(fits[text]) == 1:
                (matches[i],) = fits[text].values()
    return matches


def _plain(name: str, parts: int) -> str:
    """The last parts of a path without extension, in one case and one form of Unicode."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).replace("\\", "/")
    text = "/".join(text.split("/")[-parts:])
    return next((text.removesuffix(suffix) for suffix in SUFFIXES if text.endswith(suffix)), text)


def _what_to_do(name: str, lines: list[Line]) -> str:
    plain = {_plain(line.name, 1)[:100]: line for line in reversed(lines[:_COMPARED])}
    near = [plain[text] for text in difflib.get_close_matches(_plain(name, 1)[:100], plain, n=1)]
    hint = "".join(f"; the nearest is line {line.number}: `{one_line(f'{line.name} {line.label}', 80)}`" for line in near)
    return f"add the line `{one_line(name, 60)} LABEL`{hint}"
