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
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import IO, Any, NamedTuple, TypeVar

from .errors import DeitError, StoppedError, ToolError
from .metrics.latency import MOST_OTHER_PERCENT
from .run import host
from .run import progress as told

Task = TypeVar("Task")
START_LIMITS_S = (60, 300)  # a second start gets other ports and more time: a program took one of them, or the host is busy
QUIET_S, QUIET_LIMIT_S = 5, 600  # seconds in a row that others leave the machine alone; it is waited for them so long
GRACE_S = 0.7  # from Ctrl-C in a kernel, after which a stage removes what is unfinished, to its end
PAGES_S = 0.3  # from there until a page that is being drawn is waited for no longer


class _Kernel(NamedTuple):
    process: Popen[bytes]
    connection: Path  # the file with its ports and key


_running: dict[Path, _Kernel] = {}  # by page
_starting = threading.Lock()  # held until a new kernel is among them
_killed: set[int] = set()
_interrupted = threading.Event()


def execute(notebook: Path, page: Path, parameters: dict[str, Any], cwd: Path, progress: Path | None) -> None:
    """Run a notebook with papermill and write it, with its outputs so far, to `page`.

    Args:
        progress: the file that tells how far its stage is (`run/progress.py`), while it runs.

    Raises:
        DeitError: a cell failed; but a verdict that is not `pass` is no error: the page shows it.
        ToolError: the kernel did not start, or died; what it said is in `page` with the suffix `.log`.
        StoppedError: Ctrl-C ended it.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    log = page.with_suffix(".log")
    for limit_s in START_LIMITS_S:
        try:
            with log.open("wb") as output:
                _execute(notebook, page, parameters, cwd, _kernel_class(page, output, progress), limit_s)
            log.unlink(missing_ok=True)
            return
        except PapermillExecutionError as err:
            log.unlink(missing_ok=True)
            if err.ename == "VerdictError":
                return
            ours = {kind.__name__ for kind in DeitError.__subclasses__()}
            raise DeitError(err.evalue if err.ename in ours else f"{err.ename}: {err.evalue}") from err
        except StoppedError:
            log.unlink(missing_ok=True)
            raise
        except DeadKernelError as err:
            how = f"its kernel {_how_it_ended(_running[page].process.poll())}"
            with log.open("a") as text:  # what was killed had no last words
                text.write(f"{how}\n")
            raise ToolError(f"{how}: see {log}") from err
        except RuntimeError as err:  # it was never ready
            failure = str(err)
        finally:
            if kernel := _running.pop(page, None):
                _signal(kernel.process, "SIGKILL")  # what a dead kernel leaves, too
            if progress:
                progress.unlink(missing_ok=True)
    said = log.read_text(errors="replace").strip().splitlines()
    raise ToolError(f"its kernel did not start, twice: {said[-1] if said else failure}: see {log}")


def _execute(notebook: Path, page: Path, parameters: dict[str, Any], cwd: Path, kernel_class: type, limit_s: int) -> None:
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
            kernel_manager_class=kernel_class,
            start_timeout=limit_s,
            progress_bar=False,
            shutdown_kernel="immediate",  # everything is on disk; a graceful end interrupts the kernel, noisily
        )
    finally:
        stop_if_interrupted()


def _kernel_class(page: Path, log: IO[bytes], progress: Path | None) -> type:
    """A manager of kernels of this Python, whatever is installed as `python3`; they print to `log`."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    own = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")

    class OwnKernel(AsyncKernelManager):
        kernel_spec = own

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # as its base does
            environment = {**os.environ, told.FILE: str(progress)} if progress else dict(os.environ)
            with _starting:
                stop_if_interrupted()
                await super().start_kernel(**options, env=environment, stdout=log, stderr=log)
                process = self.provisioner.process  # type: ignore[union-attr]  # a LocalProvisioner's
                _running[page] = _Kernel(process, Path(self.connection_file))

    return OwnKernel


def _how_it_ended(code: int | None) -> str:
    if code == -9:
        return "was killed, most likely because memory ran out: a smaller batch size, fewer threads or streams need less"
    if code is not None and code < 0:
        return f"crashed ({signal.Signals(-code).name}), most likely in the native code of a library: try another backend"
    return f"ended by itself with exit code {code}: nothing in a notebook may end its Python"


def in_threads(work: Callable[[Task], None], tasks: Iterable[Task], count: int | None) -> None:
    """Run `work` on tasks side by side; Ctrl-C ends the kernels that it started, a second one at once.

    Raises:
        KeyboardInterrupt: Ctrl-C. A thread that draws a page may still do so: whoever catches it ends the process.
        The first error of the work, when what runs has ended.
    """
    _interrupted.clear()
    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(work, task) for task in tasks]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        _interrupted.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _end_kernels()
        wait(futures, PAGES_S)
        raise
    for future in futures:
        if not future.cancelled():
            future.result()


def stop_if_interrupted() -> None:
    """Raise StoppedError where work was to go on that Ctrl-C has ended."""
    if _interrupted.is_set():
        raise StoppedError("interrupted")


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


def remove_unfinished(folder: Path) -> None:
    """Remove the files that this process and the kernels that it killed were writing below a folder."""
    for process in (os.getpid(), *_killed):
        for path in folder.rglob(f".tmp-{process}-*"):
            path.unlink(missing_ok=True)


def _end_kernels() -> None:
    try:
        with _starting:
            started = list(_running.values())
        for kernel in started:
            _signal(kernel.process, "SIGINT")
        deadline = time.monotonic() + GRACE_S
        while _running and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:  # at once, if Ctrl-C is pressed again
        killed = list(_running.items())
        for page, kernel in killed:
            _killed.add(kernel.process.pid)
            _signal(kernel.process, "SIGKILL")
            for path in (page.with_suffix(".log"), kernel.connection):
                path.unlink(missing_ok=True)
        for _, kernel in killed:
            with contextlib.suppress(TimeoutExpired):
                kernel.process.wait(PAGES_S)  # its memory is given back


def _signal(process: Popen[bytes], name: str) -> None:
    """Send a signal to a kernel and the programs that it started."""
    if os.name != "posix":  # no groups there: nbclient ends the kernel itself
        return
    with contextlib.suppress(OSError):
        os.killpg(process.pid, getattr(signal, name))
