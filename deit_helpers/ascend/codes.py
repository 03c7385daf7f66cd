"""Error codes of AscendCL and of ATC: what they mean and what to do, as `codes.yaml` says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

_TABLES = yaml.safe_load(Path(__file__).with_name("codes.yaml").read_text(encoding="utf-8"))
# AscendCL return code -> (meaning, advice)
ACL: dict[int, tuple[str, str]] = {code: (text, row["advice"]) for row in _TABLES["acl"] for code, text in row["codes"].items()}
# ATC's codes -> advice
ATC: dict[str, str] = {code: row["advice"] for row in _TABLES["atc"] for code in row["codes"]}


class AtcError(NamedTuple):
    """One error line of ATC's log: its code, the operator it names (None without), the text, what to do."""

    code: str
    operator: str | None
    text: str
    advice: str


def acl_text(code: int) -> str:
    """Meaning and advice of an AscendCL return code."""
    meaning, advice = ACL.get(code, ("an error this program has no words for", "look the code up in CANN's documentation"))
    return f"error {code}, {meaning}: {advice}"


def atc_errors(log: str) -> list[AtcError]:
    """The error lines of ATC's log, in order.

    Codes are `E` or `EZ`, `EE`, `EH`, `EL` and digits; an operator is named as `Op [name, …]`, `Op [name]` or `optype [Type]`.
    """
    found = []
    for line in log.splitlines():
        match = re.search(r"(?:^|[^\w\[])(E[A-Z]?\d{3,5})\s*:\s*(.+)", line)
        if match:
            operator = re.search(r"(?:Op|Opname|optype)\s*\[([^\],]+)", match[2])
            advice = ATC.get(match[1], "look the code up in CANN's documentation, and read the plog in ~/ascend/log")
            found.append(AtcError(match[1], operator[1] if operator else None, match[2].strip(), advice))
    return found
