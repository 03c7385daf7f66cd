"""The simplifier, in a process of its own with a limit of time and memory: it may crash, hang or return another graph.

`python -m deit_helpers.graph.simplify IN OUT LIMIT_BYTES` simplifies one file; `simplify` runs that.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import onnx

from .. import child

LIMIT_S = 300
LIMIT_BYTES = 16 << 30  # of address space; a DeiT-base graph takes 3 GiB of it


def simplify(graph: Path, simplified: Path, limit_s: float = LIMIT_S, limit_bytes: int = LIMIT_BYTES) -> str | None:
    """Simplify `graph` into the file `simplified`.

    Returns:
        None, or in one line why there is no simplified graph: it crashed, ran out of time or memory.
    """
    why = child.run(["-m", __name__, str(graph), str(simplified), str(limit_bytes)], limit_s)
    return why and f"onnxsim {why}"


def main(graph: Path, simplified: Path, limit_bytes: int) -> None:
    """Fold what is constant once the batch size is. Operators are not fused: their names stay those of torch's modules."""
    child.end_with_parent()
    with contextlib.suppress(ImportError):  # not a POSIX system: the limit of time still holds
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    sys.modules["torch"] = None  # type: ignore[assignment]  # onnxsim imports it, for seconds, for what is not used here
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(graph), perform_optimization=False)  # its own check is off: ours follows
    onnx.save(model, simplified)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
