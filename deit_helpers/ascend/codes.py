"""Error codes of AscendCL and of ATC: what they mean and what to do, as `codes.yaml` says."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml


@functools.cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    return yaml.safe_load(Path(__file__).with_name("codes.yaml").read_text(encoding="utf-8"))


class AtcError(NamedTuple):
    """One error line of ATC's log: its code, the operator it names (None without), the text, what to do."""

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


def atc_errors(log: str) -> list[AtcError]:
    """The error lines of ATC's log, in order.

    Codes are `E` or `EZ`, `EE`, `EH`, `EL` and digits; an operator is named as `Op [name, …]`, `Op [name]` or `optype [Type]`.
    """
    advices = {code: row["advice"] for row in _tables()["atc"] for code in row["codes"]}
    errors = []
    for line in log.splitlines():
        match = re.search(r"(?:^|[^\w\[])(E[A-Z]?\d{3,5})\s*:\s*(.+)", line)
        if match:
            operator = re.search(r"(?:Op|Opname|optype)\s*\[([^\],]+)", match[2])
            advice = advices.get(match[1], "look the code up in CANN's documentation, and read the plog in ~/ascend/log")
            errors.append(AtcError(match[1], operator[1] if operator else None, match[2].strip(), advice))
    return errors
