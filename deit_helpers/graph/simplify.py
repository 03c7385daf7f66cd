"""The simplifier, in a process of its own with a limit of time and memory: it may crash, hang or return another graph.

`python -m deit_helpers.graph.simplify IN OUT LIMIT_BYTES` simplifies one file; `simplify` runs that.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import onnx

LIMIT_S = 300
LIMIT_BYTES = 16 << 30  # of address space; a DeiT-base graph takes 3 GiB of it


def simplify(graph: Path, simplified: Path, limit_s: float = LIMIT_S, limit_bytes: int = LIMIT_BYTES) -> str | None:
    """Simplify `graph` into the file `simplified`.

    Returns:
        None, or in one line why there is no simplified graph: it crashed, ran out of time or memory.
    """
    command = [sys.executable, "-m", __name__, str(graph), str(simplified), str(limit_bytes)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"onnxsim did not end within {limit_s:g} s"
    code = process.returncode
    if code == 0 and simplified.is_file():
        return None
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return f"onnxsim {how}{': ' + lines[-1] if lines else ''}"


def main(graph: Path, simplified: Path, limit_bytes: int) -> None:
    """Fold what is constant once the batch size is. Operators are not fused: their names stay those of torch's modules."""
    with contextlib.suppress(ImportError):  # not a POSIX system: the limit of time still holds
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    sys.modules["torch"] = None  # type: ignore[assignment]  # onnxsim imports it, for seconds, for what is not used here
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(graph), perform_optimization=False)  # its own check is off: ours follows
    onnx.save(model, simplified)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
