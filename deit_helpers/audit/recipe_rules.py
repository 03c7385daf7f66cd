"""The self-audit of a pasted recipe, such as a ModelZoo README: what it prints twice and not alike, or calls what it is not.

A mismatch names its lines, counted from 1, and both values.
"""

from __future__ import annotations

import difflib
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..ascend import benchmark
from ..errors import ArtifactError
from ..metrics.verdict import readings
from .rules import Outcomes, Row, judged

ROUNDED = 0.01  # two rates that differ by less are one
_COMMAND = r"^\W*(?:sudo +)?(?:\./\S+|python[\d.]*|atc) .*"
_FILE = r"(?<![\w:/.-])((?:\.{0,2}/)?(?:[\w.-]+/)*[\w.-]+\.(?:onnx|om|pth|info|txt|json))\b"
_READ = r"(?:--model|-om_path|-input_text_path)=(\S+)"
_RATE = r"(\d{1,12}(?:\.\d{1,12})?)"
_SIZE = r"(?<![a-z])(?:bs|batch_?size=?)_?(\d+)|input[_-]shape=\S*?(\d+),3,"


class Text:
    """A recipe and its lines; an ArtifactError where it cannot be read."""

    def __init__(self, path: Path):
        try:
            self.text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as err:
            raise ArtifactError(f"{path}: cannot be read ({err.strerror}): name a recipe's text, or a run folder") from err
        self.source, self.lines = str(path), self.text.splitlines()

    def every(self, pattern: str) -> Iterator[tuple[int, re.Match[str]]]:
        """Every match with the number of its line."""
        for number, line in enumerate(self.lines, 1):
            yield from ((number, match) for match in re.finditer(pattern, line, re.IGNORECASE | re.ASCII))

    def line_of(self, pattern: str, value: float) -> int:
        """The line on which this value stands behind the pattern."""
        matches = self.every(rf"{pattern}\D{{0,40}}{_RATE}")
        return next((number for number, match in matches if float(match[1]) == value), 0)

    def accuracies(self) -> list[tuple[float, ...]]:
        """Line, Acc@1 and Acc@5 of every row of a table and every `result.json`."""
        lines = [(n, line) for n, line in enumerate(self.lines, 1) if not line.strip(" \t>").startswith("[")]
        return [(n, *tops) for n, line in lines for _, *tops in benchmark.read_recipe(line, f"{self.source} line {n}")[1]]


def _one_accuracy(text: Text) -> Outcomes:
    for k, name in ((1, "Acc@1"), (2, "Acc@5")):
        lines: dict[float, list[int]] = {}
        for row in text.accuracies():
            lines.setdefault(row[k], []).append(int(row[0]))
        yield f"{name} is {_on_lines(lines)}" if len(lines) > 1 else "" if lines else None


def _on_lines(lines: Mapping[Any, list[int]]) -> str:
    return " but ".join(f"{value} on line {', '.join(map(str, numbers))}" for value, numbers in lines.items())


def _order(text: Text) -> Outcomes:
    printed = [(n, re.findall(r'"Top\d accuracy", "value": "([\d.]+)', line)) for n, line in enumerate(text.lines, 1)]
    for number, *tops in [*text.accuracies(), *((n, *map(float, tops)) for n, tops in printed)]:
        yield from (f"line {number}: {a:g} before {b:g}" if a > b else "" for a, b in itertools.pairwise(tops))


def _card(text: Text) -> Outcomes:
    rates: dict[float, int] = {}
    for number, match in text.every(rf"throughputRate: *{_RATE}"):
        rates.setdefault(float(match[1]), number)
    for number, match in text.every(rf"(?<![\d.]){_RATE} *[x×*] *([2-9]) *= *{_RATE}"):
        if line := rates.get(float(match[1])):
            yield f"line {number}: {match[3]} is {match[2]} times the {match[1]} of one device on line {line}, not measured"


def _batches(text: Text) -> Outcomes:
    for size, measured in benchmark.read_recipe(text.text, text.source)[0].items():
        post, inference = measured.rates["postprocess"], measured.rates["inference"]
        if size > 1:
            lines = text.line_of(r"\[post\w*\]", post), text.line_of(r"\[infer\w*\]", inference)
            said = f"line {lines[0]}: {post:g} is of batches, x {size} = {post * size:g}"
            yield f"{said}; line {lines[1]}: {inference:g} is of images" if abs(post * size / inference - 1) < ROUNDED else ""


def _chips(text: Text) -> Outcomes:
    patterns = {"310": r"(?<![\d.])310(?! *(?:images|samples|fps|ms|\||[\w.,%]))", "310P": "310P"}
    of_310, of_310p = ({number for number, _ in text.every(pattern)} for pattern in patterns.values())
    lines = {"310": sorted(of_310 - of_310p), "310P": sorted(of_310p - of_310)}  # a line with both keeps them apart
    if any(lines.values()):
        yield f"{_on_lines(lines)}, which is another chip" if all(lines.values()) else ""


def _batch_size(text: Text) -> Outcomes:
    for number, command in text.every(_COMMAND):
        matches = re.finditer(_SIZE, command[0], re.IGNORECASE)
        sizes = list(dict.fromkeys(match[1] or match[2] for match in matches))
        yield f"line {number}: batch size {' but '.join(sizes)}" if len(sizes) > 1 else "" if sizes else None


def _places(text: Text) -> Outcomes:
    places: dict[str, dict[str, list[int]]] = {}
    for number, match in text.every(_FILE):
        path = posixpath.normpath(match[1])
        places.setdefault(posixpath.basename(path), {}).setdefault(path, []).append(number)
    yield from (_on_lines(paths) if len(paths) > 1 else "" for paths in places.values())


def _made(text: Text) -> Outcomes:
    for number, match in text.every(_READ):
        before, name = "\n".join(text.lines[: number - 1]), posixpath.basename(match[1])
        made = [f"{posixpath.basename(path)}.om" for path in re.findall(r"--output=(\S+)", before)]
        made += [posixpath.basename(path) for path in re.findall(_FILE, before, re.ASCII)]
        close = difflib.get_close_matches(name, made, 1)
        yield f"line {number} reads {name}, made before it is {close[0]}" if close and name not in made else ""


def _within(text: Text) -> Outcomes:
    published = next((float(match[1]) for _, match in text.every(r"official\W+(\d+\.\d+)")), None)
    lowest = min((row[1] for row in text.accuracies()), default=None)
    for number, match in text.every(r"(?:within|下降|drop|loss)[^|]{0,20}?(\d+(?:\.\d+)?) ?%"):
        said = re.search("points?|百分点|relative|absolute|相对|绝对", text.lines[number - 1])
        both = readings(lowest, published, float(match[1])) if lowest and published else "points, or a share of the figure"
        yield "" if said else f"line {number}: {match[0]!r} can be read two ways. {both}"


def _samples(text: Text) -> Outcomes:
    for filled, group in itertools.groupby(enumerate(text.lines, 1), lambda row: bool(row[1].strip())):
        numbers, paragraph = zip(*group, strict=True)
        said = "\n".join(paragraph) if filled else ""
        percentile = re.search(r"\bp(?:50|9\d)\b[^|\d]*[\d.]+", said, re.IGNORECASE | re.ASCII)
        counted = re.search(r"\bn\b|samples|iterations|batches|loops?\b|次", said, re.IGNORECASE | re.ASCII)
        if percentile:
            yield "" if counted else f"from line {numbers[0]}: {percentile[0]!r} of how many samples?"


RULES: dict[str, tuple[str, Callable[[Text], Outcomes]]] = {
    "one Acc@1": ("one model has one Acc@1 and one Acc@5", _one_accuracy),
    "order of Acc@k": ("Acc@1 ≤ Acc@2 ≤ … ≤ Acc@5", _order),
    "card": ("a card's rate was measured on the card, not one device's times a number", _card),
    "images/s": ("a rate beside rates of images is of images, not of batches", _batches),
    "chip": ("all figures are of one chip: a 310P is not a 310", _chips),
    "batch size": ("names and options of a command are of one batch size", _batch_size),
    "places": ("a file lies in one place", _places),
    "names": ("a file is read under the name it was made with", _made),
    "within": ("a limit says whether it is points or a share", _within),
    "n": ("a percentile has the number of its samples", _samples),
}


def check(path: Path) -> list[Row]:
    """Every rule on the text of a recipe. Raises an ArtifactError where the file cannot be read."""
    text = Text(path)
    return [judged(name, statement, looks, [text]) for name, (statement, looks) in RULES.items()]
