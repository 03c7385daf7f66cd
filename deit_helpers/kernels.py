"""One notebook in a kernel of its own: of this very Python, started once more if it dies at start, ended with this process.

A kernel leads a process group, which the programs that its stage starts belong to. A terminal's Ctrl-C does not reach it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import IO, Any, TypeVar

from .errors import DeitError, ToolError
from .metrics.latency import MOST_OTHER_PERCENT
from .run import host

Task = TypeVar("Task")
START_LIMITS_S = (60, 300)  # a second start gets other ports and more time: a program took one of them, or the host is busy
QUIET_S, QUIET_LIMIT_S = 5, 600  # seconds in a row that others leave the machine alone; it is waited for them so long
GRACE_S = 3.0  # from Ctrl-C in a kernel, after which a stage removes what is unfinished, to its end

_running: dict[Path, Popen[bytes]] = {}  # by page
_interrupted = threading.Event()


def execute(notebook: Path, page: Path, parameters: dict[str, Any], cwd: Path, stdout_file: IO[str] | None) -> None:
    """Run a notebook with papermill and write it, with its outputs so far, to `page`.

    Args:
        stdout_file: where what the cells print goes, besides the page.

    Raises:
        PapermillExecutionError: a cell failed.
        ToolError: the kernel did not start, or died; what it said is in `page` with the suffix `.log`.
        DeitError: Ctrl-C ended it.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    log = page.with_suffix(".log")
    for limit_s in START_LIMITS_S:
        try:
            with log.open("wb") as output:
                _execute(notebook, page, parameters, cwd, stdout_file, output, limit_s)
            log.unlink()
            return
        except (PapermillExecutionError, DeitError):
            log.unlink()
            raise
        except DeadKernelError as err:
            how = f"its kernel {_how_it_ended(_running[page].poll())}"
            with log.open("a") as text:  # what was killed had no last words
                text.write(f"{how}\n")
            raise ToolError(f"{how}: see {log}") from err
        except RuntimeError as err:  # it was never ready
            failure = str(err)
        finally:
            if process := _running.pop(page, None):
                _signal(process, "SIGKILL")  # what a dead kernel leaves, too
    said = log.read_text(errors="replace").strip().splitlines()
    raise ToolError(f"its kernel did not start, twice: {said[-1] if said else failure}: see {log}")


def _execute(
    notebook: Path, page: Path, parameters: dict[str, Any], cwd: Path, stdout_file: IO[str] | None, log: IO[bytes], limit_s: int
) -> None:
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it says of kernels is in the errors raised here
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, page))  # papermill fills in {x}
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            cwd=cwd,
            kernel_name="python3",  # whatever the notebook says of the kernel it was edited with
            language="python",
            kernel_manager_class=_kernel_class(page, log),
            start_timeout=limit_s,
            progress_bar=False,
            stdout_file=stdout_file,
            shutdown_kernel="immediate",  # everything is on disk; a graceful end interrupts the kernel, noisily
        )
    finally:
        stop_if_interrupted()


def _kernel_class(page: Path, log: IO[bytes]) -> type:
    """A manager of kernels of this Python, whatever is installed as `python3`; they print to `log`."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    own = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")

    class OwnKernel(AsyncKernelManager):
        kernel_spec = own

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # as its base does
            stop_if_interrupted()
            await super().start_kernel(**options, stdout=log, stderr=log)
            _running[page] = self.provisioner.process  # type: ignore[union-attr]  # a LocalProvisioner's
            if _interrupted.is_set():  # meanwhile
                _signal(_running[page], "SIGKILL")

    return OwnKernel


def _how_it_ended(code: int | None) -> str:
    if code == -9:
        return "was killed, most likely because memory ran out: a smaller batch size, fewer threads or streams need less"
    if code is not None and code < 0:
        return f"crashed ({signal.Signals(-code).name}), most likely in the native code of a library: try another backend"
    return f"ended by itself with exit code {code}: nothing in a notebook may end its Python"


def in_threads(work: Callable[[Task], None], tasks: Iterable[Task], count: int | None) -> None:
    """Run `work` on tasks side by side; Ctrl-C ends the kernels that it started.

    Raises:
        The first error of the work, when what runs has ended.
    """
    _interrupted.clear()
    with _ended_by_interrupt(), ThreadPoolExecutor(count) as pool, _ended_by_interrupt():  # while it works, while it is awaited
        list(pool.map(work, tasks))


def stop_if_interrupted() -> None:
    """Raise a DeitError where work was to go on that Ctrl-C has ended."""
    if _interrupted.is_set():
        raise DeitError("interrupted")


def wait_for_quiet(say: Callable[[str], None]) -> None:
    """Return once others have left the CPU alone for QUIET_S seconds in a row, or have not for QUIET_LIMIT_S; says it once."""
    start, quiet, said, others = time.monotonic(), 0, False, host.Others()
    while quiet < QUIET_S:
        time.sleep(1)
        stop_if_interrupted()
        percent, _ = others.percent()
        percent = host.interrupted_percent() if percent is None else percent
        quiet = quiet + 1 if percent <= MOST_OTHER_PERCENT else 0
        if quiet == 0 and not said:
            say(f"others have {percent:.0f} % of the CPU: waiting for quiet, {QUIET_LIMIT_S // 60} minutes at most")
            said = True
        if time.monotonic() - start > QUIET_LIMIT_S:
            say(f"others still have {percent:.0f} % of the CPU: going on, and the pages will say it")
            return


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.set()
        try:
            for process in list(_running.values()):
                _signal(process, "SIGINT")
            deadline = time.monotonic() + GRACE_S
            while _running and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:  # at once, if Ctrl-C is pressed again
            for process in list(_running.values()):
                _signal(process, "SIGKILL")
        raise


def _signal(process: Popen[bytes], name: str) -> None:
    """Send a signal to a kernel and the programs that it started."""
    if os.name != "posix":  # no groups there: nbclient ends the kernel itself
        return
    with contextlib.suppress(OSError):
        os.killpg(process.pid, getattr(signal, name))
