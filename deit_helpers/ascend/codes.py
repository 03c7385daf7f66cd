"""What the vendor's programs say when they fail, in codes or in words: what it means and what to do, as `codes.yaml` says."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import one_line

# `E10001: text`, `Invalid_Argument(E10001): text` of the releases of 2026, and `EZ9999  text`.
_CODE = re.compile(r"(?:^|[^\w\[])(E[A-Z]?\d{3,5})(?:\)?\s*:|\s{2})(.*)")
_STAMP = re.compile(r"(?:\[PID: \d+\])?\s*(?:\d{4}-\d\d-\d\d-[\d:.]+)?\s*")  # may stand before the text
_NOTHING = re.compile(r"(?:inner error|internal error)?\W*", re.IGNORECASE)  # the text is on the next line
_OPERATOR = re.compile(r"(?:\bOp|Opname|[Oo]ptype|found for)\s*\[([^\],]+)")  # the first is the name, where there is one
_BORDER = re.compile(r"\s*[+|].*|\W*")  # of a table, and dots of progress
_BANNER = re.compile(r"ATC (?:start working now|run failed, Please check)|Trace[Bb]ack \(most recent call last\)")


@functools.cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    return yaml.safe_load(Path(__file__).with_name("codes.yaml").read_text(encoding="utf-8"))


class AtcError(NamedTuple):
    """One error of ATC's log: its code, the operator or type it names (None without), the text, what to do."""

    code: str
    operator: str | None
    text: str
    advice: str


def acl_text(code: int) -> str:
    """Meaning and advice of an AscendCL return code."""
    for row in _tables()["acl"]:
        if code in row["codes"]:
            return f"error {code}, {row['codes'][code]}: {row['advice']}"
    return f"error {code}, an error this program has no words for: look the code up in CANN's documentation"


def atc_errors(log: str, opset: int | None = None) -> list[AtcError]:
    """The errors of ATC's log that have a code, in order.

    Codes are `E` or `EZ`, `EE`, `EH`, `EL` and digits; an operator is named as `Op [name, …]`, `found for [name]`, `Op [name]`,
    or by its type alone: `Optype [Type]`.

    Args:
        opset: the graph's: advice to set 11 is for another one.
    """
    errors = []
    lines = log.splitlines()
    for number, line in enumerate(lines):
        match = _CODE.search(line)
        if not match:
            continue
        code, text = match[1], _unstamped(match[2])
        if _NOTHING.fullmatch(text):
            following = _says_something(lines[number + 1 :])
            if _CODE.search(following):
                continue  # which says the rest, and comes next
            text = _unstamped(following) or text
        operator = _OPERATOR.search(text)
        errors.append(AtcError(code, operator[1] if operator else None, text, _advice(code, opset)))
    return errors


def _unstamped(text: str) -> str:
    return _STAMP.sub("", text.strip(), count=1).strip()


def _advice(code: str, opset: int | None) -> str:
    for row in _tables()["atc"]:
        if code in row["codes"]:
            return row["advice_at_11"] if opset == 11 and "advice_at_11" in row else row["advice"]
    return "look the code up in CANN's documentation, and read the plog in ~/ascend/log"


def failure(tool: str, output: str, otherwise: str) -> str:
    """What a failed program said that matters, and what to do.

    Args:
        tool: its name in the part `words` of `codes.yaml`, whose first row that is in the output counts.
        otherwise: what to do where no row is: then the last line that says something is quoted.
    """
    lines = output.splitlines()
    for row in _tables()["words"]:
        if row["tool"] == tool and (line := next((line for line in lines if re.search(row["says"], line)), None)):
            return f"{one_line(line.strip(), 160)}: {row['advice']}"
    return f"{one_line(_says_something(reversed(lines)), 160) or 'it printed no reason'}: {otherwise}"


def _says_something(lines: Iterable[str]) -> str:
    """The first of the lines that is neither empty nor a border nor a banner; empty without one."""
    return next((line.strip() for line in lines if not _BORDER.fullmatch(line) and not _BANNER.search(line)), "")
