"""Error codes of AscendCL and of ATC: what they mean and what to do. Numbers and meanings are the vendor's."""

from __future__ import annotations

import re
from typing import NamedTuple

_SHAPE = "run 02 and 03 again for this batch size"
_MODEL = "run 03 again on this host, for this chip and CANN version"
_BUSY = "another process holds the device: look at npu-smi info, wait or set another device"
_DRIVER = "check `npu-smi info`, the driver, and that your user is in the group HwHiAiUser"
_OURS = "this is a fault of the program: report it with the log"

# AscendCL return code -> (meaning, advice)
ACL: dict[int, tuple[str, str]] = {
    100000: ("a parameter was refused", _OURS),
    100001: ("AscendCL is not initialised", _OURS),
    100002: ("AscendCL was initialised twice", "use one pyacl backend per process"),
    100003: ("the configuration file is bad", _OURS),
    100011: ("the model is not loaded", _MODEL),
    100012: ("the model cannot be read", _MODEL),
    100013: ("the model cannot be parsed", _MODEL),
    100014: ("the model cannot be read", _MODEL),
    100015: ("the model has an impossible size", _MODEL),
    100016: ("the model lacks an attribute: built by another CANN version", _MODEL),
    100017: ("the input does not fit the model", _SHAPE),
    100018: ("the output does not fit the model", _SHAPE),
    100037: ("AscendCL was finalised twice", _OURS),
    100038: ("the model has no static AIPP", "set `aipp: null`, or run 03 again with `aipp: static`"),
    100039: ("the stub library was loaded", "take devlib out of LD_LIBRARY_PATH on a host with a device"),
    107000: ("the runtime refused a parameter", _OURS),
    107001: ("there is no such device", "set `device` to an index that npu-smi lists"),
    107002: ("the thread has no device context", "open and use the backend in one thread"),
    107003: ("the stream is of another context", _OURS),
    107004: ("the model is of another context", _OURS),
    107008: ("an address is not aligned", _OURS),
    107017: ("a handle is not valid", _OURS),
    145000: ("the graph engine refused a parameter, such as a wrong buffer size", _SHAPE),
    145001: ("the executor is not initialised", _OURS),
    145002: ("the OM file is missing, empty or unreadable", _MODEL),
    145003: ("there is no model of this id", _OURS),
    145006: ("the OM is corrupt", _MODEL),
    145007: ("the OM is corrupt", _MODEL),
    145009: ("the model was loaded twice", _OURS),
    200000: ("memory ran out on the host", "use a smaller batch size"),
    200001: ("this call is not supported here", "set `execution: sync`"),
    207000: ("this feature is not supported here", "set `execution: sync`"),
    207001: ("memory ran out on the device", "use a smaller batch size, or free the device"),
    207004: ("there is no device", _DRIVER),
    207006: ("no permission for the device", _DRIVER),
    207008: ("the device has no stream left", _BUSY),
    207018: ("memory ran out on the device", "use a smaller batch size, or free the device"),
    245000: ("memory ran out in the graph engine", "use a smaller batch size, or free the device"),
    500000: ("an internal error", "read the plog of this process in ~/ascend/log"),
    507000: ("an internal error of the runtime", "read the plog of this process in ~/ascend/log"),
    507008: ("the OM was built for another chip", _MODEL),
    507011: ("the execution of the model failed", "read the plog of this process in ~/ascend/log"),
    507014: ("an AI core ran out of time", "read the plog; try a smaller batch size"),
    507015: ("an AI core raised an exception", "read the plog of this process in ~/ascend/log"),
    507018: ("an AI CPU raised an exception", "read the plog of this process in ~/ascend/log"),
    507033: ("the device could not be started", _BUSY),
    507046: ("waiting for the stream took too long", "read the plog; try a smaller batch size"),
    507899: ("an internal error of the driver", _DRIVER),
    545001: ("the model could not be loaded", _MODEL),
}

_FLAG = "correct this flag in `atc` of the spec"
_ENVIRONMENT = "source set_env.sh and install the packages CANN's guide asks for (decorator, sympy, te)"
_OPSET = "set `opset: 11` and run from 01 again"
# ATC's codes -> advice. Meanings come with the message itself.
ATC: dict[str, str] = {
    "E10001": f"{_FLAG}; if it is soc_version, take the Name column of npu-smi info",
    "E10002": _FLAG,
    "E10003": _FLAG,
    "E10004": _FLAG,
    "E10005": _FLAG,
    "E10006": _FLAG,
    "E10007": _FLAG,
    "E10016": "a flag names a node the graph does not have: " + _FLAG,
    "E10017": "name the graph's input `image` in the flag",
    "E10047": "leave out one of the two flags",
    "E10410": "a file is missing: run 02 again",
    "E10501": "install the ops package of this chip (CANN 8.5 and newer ship them apart)",
    "EZ0501": "install the ops package of this chip (CANN 8.5 and newer ship them apart)",
    "E14001": "an operator's argument is refused: " + _OPSET,
    "E16001": "the graph is empty: run 02 again",
    "E16004": "the graph is empty: run 02 again",
    "E16005": _OPSET,
    "E16002": "ATC does not know the operator: " + _OPSET,
    "E19000": _FLAG,
    "E19010": "ATC does not know the operator at this opset: " + _OPSET,
    "EZ9010": "ATC does not know the operator at this opset: " + _OPSET,
    "E19014": "an operator's value is refused: run 02 without edits to find which",
    "E19999": "an inner error: read the plog in ~/ascend/log",
    "E20001": "compiling an operator failed: read the plog in ~/ascend/log",
    "E20007": "a fusion pass failed: switch it off with fusion_switch_file in `atc`",
    "EZ3002": "the chip does not support the operator in this precision",
    "EZ3003": "the chip has no kernel for the operator in this precision or shape",
    "E30006": "the operator package does not verify: install it again",
    "E40001": _ENVIRONMENT,
    "E40002": _ENVIRONMENT,
    "E40003": _ENVIRONMENT,
    "E40020": _ENVIRONMENT,
    "E40021": "compiling an operator failed: read the plog in ~/ascend/log",
    "E40024": _ENVIRONMENT,
    "EZ9999": "an inner error: read the plog in ~/ascend/log",
}


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
        match = re.match(r"\s*(?:\[?ERROR\]?\s*)?(E[A-Z]?\d{4,5})\s*:?\s*(.+)", line)
        if match:
            operator = re.search(r"(?:Op|Opname|optype)\s*\[([^\],]+)", match[2])
            advice = ATC.get(match[1], "look the code up in CANN's documentation, and read the plog in ~/ascend/log")
            found.append(AtcError(match[1], operator[1] if operator else None, match[2].strip(), advice))
    return found
