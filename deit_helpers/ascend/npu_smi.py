"""`npu-smi info`: the chips of this host, their health and memory."""

from __future__ import annotations

import functools
import re
import subprocess
from typing import NamedTuple

from ..errors import ToolError
from . import cann, codes

TIMEOUT_S = 30


class Chip(NamedTuple):
    """One chip. Memory is that of the device, in MB as the tool prints it, None for its `NA`; so is the bus id of a board."""

    npu: int
    name: str
    health: str
    bus_id: str
    memory_used_mb: int | None
    memory_total_mb: int | None

    @property
    def soc_version(self) -> str | None:
        """ATC's name of the chip; None where the table does not tell (a bare `Ascend910` is an A3; the 950 alike)."""
        if self.name == "Ascend910" or self.name.startswith("Ascend950"):
            return None
        return self.name if self.name.startswith("Ascend") else f"Ascend{self.name}"

    @property
    def memory(self) -> str:
        """Its memory in words."""
        used, total = ("?" if mb is None else mb for mb in (self.memory_used_mb, self.memory_total_mb))
        return f"{used} of {total} MB used"


class Report(NamedTuple):
    """What the tool printed: its version, which is the driver's, and the chips in order of their device index."""

    driver: str | None
    chips: list[Chip]


_HEALTH = r"(?!NA$)[A-Za-z]+"  # OK, Warning, Alarm, Critical, UNKNOWN
_BUS = r"NA|[^\s:]+:[^\s:]+:[^\s:]+"  # boards have none; people make theirs anonymous
_MEMORY = r"(?<!\d)(\d{1,9}|NA)\s*/\s*(\d{1,9}|NA)(?!\d)"


def parse(text: str) -> Report:
    """Read the table of `npu-smi info`, whatever separators and columns its version draws.

    A chip is two rows: index and name, health; bus id, memory. From the 950 on the first cell is two. Processes come last.
    """
    version = re.search(r"Version:\s*(\S+)", text)
    chips: list[Chip] = []
    first: tuple[int, str, str] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if "process id" in line.lower():
            break
        if len(cells) == 4:
            cells[:2] = [" ".join(cells[:2])]
        if len(cells) != 3:
            continue
        head = re.fullmatch(r"(\d{1,9})\s+(\S+)", cells[0])
        if first and re.fullmatch(_BUS, cells[1]):
            # The last pair of numbers: HBM where there is one, the plain memory on 310 and 310P.
            pairs = re.findall(_MEMORY, cells[2]) or [("NA", "NA")]
            chips.append(Chip(*first, cells[1], *(None if mb == "NA" else int(mb) for mb in pairs[-1])))
            first = None
        else:
            first = (int(head[1]), head[2], cells[1]) if head and re.fullmatch(_HEALTH, cells[1]) else None
    return Report(version[1] if version else None, chips)


def info() -> Report | None:
    """The chips of this host, None without `npu-smi`.

    Raises:
        ToolError: the tool failed or printed no chip.
    """
    path = cann.tool("npu-smi")
    if path is None:
        return None
    report, failure = _ask(path)
    if failure:
        raise ToolError(failure)
    return report


@functools.cache  # every check of an OM asks: once a process is enough, above all when the driver hangs
def _ask(path: str) -> tuple[Report, str]:
    """What the tool printed, and why that is of no use; the reason is empty when it is."""
    nothing = Report(None, [])
    try:
        asked = subprocess.run([path, "info"], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except OSError as err:
        return nothing, f"{path}: cannot be started ({err.strerror}): install the driver's npu-smi again"
    except subprocess.TimeoutExpired:
        return nothing, f"npu-smi info did not end within {TIMEOUT_S} s: the driver hangs, reboot the host"
    report = parse(asked.stdout)
    if asked.returncode == 0 and report.chips:
        return report, ""
    why = codes.failure("npu-smi", asked.stdout + asked.stderr, "check the driver and the group of your user")
    return report, f"npu-smi info failed ({asked.returncode}): {why}"


def soc_version(device: int) -> str:
    """ATC's name of the chip with this device index.

    Raises:
        ToolError: no tool, no such chip, or a chip whose name the table does not tell.
    """
    report = info()
    if report is None:
        raise ToolError("soc_version: there is no npu-smi to ask: set it in the spec, such as soc_version: Ascend310P3")
    if device >= len(report.chips):
        raise ToolError(f"device {device}: npu-smi lists {len(report.chips)} chips, 0 to {len(report.chips) - 1}: set device")
    chip = report.chips[device]
    if chip.soc_version is None:
        raise ToolError(f"soc_version: npu-smi calls the chip {chip.name}: set what `npu-smi info -t board` says in the spec")
    return chip.soc_version
