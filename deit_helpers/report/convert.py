"""What 03 shows."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts
from .notes import notes as notes


def conversion(run: Run) -> Facts:
    convert = run.read("convert")
    return Facts(
        f"Conversion for {convert['backend']}, bs{convert['batch_size']}",
        {
            "status": convert["status"],
            "why": convert["reason"],
            "device model": convert["device_model"] or "none",
            "chip": convert["soc_version"] or "not known here",
            "ATC command on an Ascend host": convert["command_line"],
        },
    )
