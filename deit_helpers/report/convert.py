"""What 03 shows: the device's model, or why none is needed, and the command that makes it."""

from __future__ import annotations

from ..run.folder import Run
from .elements import Facts
from .words import notes as notes


def conversion(run: Run) -> Facts:
    """Whether a device model was made, of which graph, for which chip and by which command."""
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
