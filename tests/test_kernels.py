"""Kernels: whose Python they are, how they start and die, and that Ctrl-C leaves no process of any stage."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from jupyter_client.connect import LocalPortCache
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from runs import write_spec

from deit_helpers import kernels
from deit_helpers.errors import DeitError
from deit_helpers.run import lineage

LOAD = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # processes that want each core
LIMIT_S = 5.0 * LOAD  # from Ctrl-C until nothing is left
BUSY_S = 60.0  # to get to work, on a host with other work

# What a stage may be doing: its last line never ends.
STUBBORN = f"""
import signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print(flush=True); time.sleep({BUSY_S})"
program = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
program.stdout.readline()
pool = ThreadPoolExecutor(2)
pool.submit(time.sleep, {BUSY_S})
Path("at_work").touch()
time.sleep({BUSY_S})
"""
DEAF = f"""
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as native code is that does not return
Path(f"reports/test/.tmp-{{os.getpid()}}-logits.npy").touch()
Path("at_work").touch()
time.sleep({BUSY_S})
"""
SIMPLIFIER = f"""
import time
from pathlib import Path
from deit_helpers.graph import simplify
Path("wait.py").write_text("import pathlib, time; pathlib.Path('at_work').touch(); time.sleep({BUSY_S})")
simplify.__name__ = "wait"
simplify.simplify(Path("a"), Path("b"))
"""
VENDOR = f"""
import sys
from pathlib import Path
from deit_helpers.ascend import cann
program = "import pathlib, time; pathlib.Path('at_work').touch(); time.sleep({BUSY_S})"
cann.logged([sys.executable, "-c", program], Path("log"), Path.cwd())
"""


def write_notebook(project: Path, code: str, name: str = "06_accuracy", kernel: str = "python3") -> Path:
    """Put `notebooks/NAME.ipynb` with one cell into the project, which goes before the package's own."""
    parameters = new_code_cell("spec = None\nbatch_size = 1", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell(f"# {name}"), parameters, new_code_cell(code)])
    notebook.metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    path = project / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


def start(project: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Start `deit-report run` with options as the leader of its own process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "deit_helpers", "run", *options],
        cwd=project,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def without_log(said: str) -> list[str]:
    """What is said on stderr besides the lines with a time, which the log has too, and where the log is."""
    lines = said.splitlines()
    assert lines[0][2] == ":"
    return [line for line in lines if line[2:3] != ":" and not line.startswith("log: ")]


def run_06(project: Path, code: str, **environment: str) -> tuple[int, str]:
    """Run a notebook of this code as 06, and an empty report; exit code and stderr."""
    write_spec(project, batch_sizes=[1])
    write_notebook(project, code)
    write_notebook(project, "'the report'", "report")
    process = start(project, "params/test.yaml", "--from", "06", "--to", "06", **environment)
    _, said = process.communicate(timeout=2 * BUSY_S)
    return process.returncode, said


def stopped(process: subprocess.Popen[str], number: int, group: bool) -> tuple[int, str, list[psutil.Process]]:
    """Send a signal; exit code, stderr, and what is left of the processes it had, LIMIT_S later."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    start_s = time.monotonic()
    os.killpg(process.pid, number) if group else process.send_signal(number)
    _, said = process.communicate(timeout=LIMIT_S)
    _, left = psutil.wait_procs(children, timeout=max(0.0, LIMIT_S - time.monotonic() + start_s))
    return process.returncode, said, left


def living() -> list[int]:
    """Processes that run; where nobody asks for their exit codes, others are still listed."""
    return [process.pid for process in psutil.process_iter() if process.status() != psutil.STATUS_ZOMBIE]


def until(happened, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + BUSY_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "number", "group"),
    [
        (STUBBORN, signal.SIGINT, False),
        (STUBBORN, signal.SIGINT, True),
        (STUBBORN, signal.SIGTERM, False),
        (STUBBORN, signal.SIGHUP, True),
        (DEAF, signal.SIGINT, True),
        (SIMPLIFIER, signal.SIGINT, True),
        (VENDOR, signal.SIGTERM, True),
    ],
    ids=[
        "kill -INT",
        "Ctrl-C",
        "kill",
        "terminal closed",
        "a deaf kernel",
        "Ctrl-C in the simplifier",
        "kill in a vendor's program",
    ],
)
def test_a_signal_ends_the_run_and_all_it_started(project: Path, code: str, number: int, group: bool) -> None:
    write_spec(project, batch_sizes=[1])
    write_notebook(project, code)
    process = start(project, "params/test.yaml", "--from", "06", "--to", "06")
    until((project / "at_work").exists, process)
    exit_code, said, left = stopped(process, number, group)
    assert left == []
    assert exit_code == 128 + number
    command = "python -m deit_helpers run params/test.yaml --from 06 --to 06"
    assert without_log(said) == [f"interrupted: what is finished is kept; go on with: {command}"]
    assert [path.name for path in (*project.rglob(".tmp-*"), *project.rglob("*.log"))] == ["run.log"]
    index = (project / "reports/test/index.html").read_text()
    assert f"interrupted at [1/2] 06_accuracy bs1; go on with: {command}" in index


LAUNCHER = """
import pathlib, runpy, sys, time
first = not pathlib.Path("tried").exists()
pathlib.Path("tried").touch()
{fault}
sys.path = [folder for folder in sys.path if folder not in ("", {project!r})]
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""
FAULTS = {
    "dies once": "if first: sys.exit('ImportError: a library is being installed')",
    "is slow once": "if first: time.sleep(30)",
    "dies always": "sys.exit('ImportError: no module zmq')",
}


def write_launcher(project: Path, fault: str) -> None:
    """Put a launcher of kernels into the folder in which they start, which goes before ipykernel's own."""
    (project / "ipykernel_launcher.py").write_text(LAUNCHER.format(fault=FAULTS[fault], project=str(project)))


@pytest.mark.parametrize("fault", ["dies once", "is slow once"])
def test_a_kernel_that_does_not_start_is_started_once_more(project: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    write_launcher(project, fault)
    monkeypatch.setattr(kernels, "START_LIMITS_S", (3, 60))
    kernels.execute(write_notebook(project, "1 + 1"), project / "page.ipynb", {}, project, None)
    assert "2" in (project / "page.ipynb").read_text()
    assert not (project / "page.log").exists()


def test_a_port_that_another_program_took_is_not_asked_for_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = iter(list[int]())
    find = LocalPortCache.find_available_port
    monkeypatch.setattr(LocalPortCache, "find_available_port", lambda cache, ip: next(ports, 0) or find(cache, ip))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1]])
        kernels.execute(write_notebook(project, "1 + 1"), project / "page.ipynb", {}, project, None)
        assert next(ports, None) is None
    assert "2" in (project / "page.ipynb").read_text()


def test_a_kernel_that_never_starts_is_one_line_with_its_last_words(project: Path) -> None:
    write_launcher(project, "dies always")
    code, said = run_06(project, "1 + 1")
    assert code == 1
    log = project / "reports/test/bs1/06_accuracy.log"
    assert without_log(said) == [
        f"error: 06_accuracy bs1: its kernel did not start, twice: ImportError: no module zmq: see {log}"
    ]
    assert "no module zmq" in log.read_text()


WHOSE = "import pathlib, sys; pathlib.Path('whose').write_text(sys.executable)"


@pytest.mark.parametrize("kernel", ["python3", "my-env"])
def test_the_kernel_is_of_this_python_whatever_is_installed_or_written_in_the_notebook(project: Path, kernel: str) -> None:
    other = project / "jupyter" / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["/nowhere/python", "{connection_file}"], "display_name": "", "language": "R"}))
    write_spec(project, batch_sizes=[1])
    write_notebook(project, WHOSE, kernel=kernel)
    write_notebook(project, "", "report")
    process = start(project, "params/test.yaml", "--from", "06", "--to", "06", JUPYTER_PATH=str(project / "jupyter"))
    _, said = process.communicate(timeout=2 * BUSY_S)
    assert process.returncode == 0, said
    assert (project / "whose").read_text() == sys.executable


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os.kill(os.getpid(), 9)", "was killed, most likely because memory ran out: a smaller batch size, fewer threads"),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV), most likely in the native code of a library"),
        ("os._exit(3)", "ended by itself with exit code 3"),
    ],
    ids=["killed", "crashed", "exits"],
)
def test_a_kernel_that_dies_is_one_line_and_leaves_nothing(project: Path, death: str, how: str) -> None:
    child = f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep({BUSY_S})'])"
    imports = "import os, pathlib, subprocess, sys"
    code, said = run_06(project, f"{imports}; {child}; pathlib.Path('child').write_text(str(p.pid)); {death}")
    assert code == 1
    (line,) = without_log(said)
    assert line.startswith(f"error: 06_accuracy bs1: its kernel {how}")
    log = project / "reports/test/bs1/06_accuracy.log"
    assert line.endswith(f": see {log}")
    assert how in log.read_text()
    assert int((project / "child").read_text()) not in living()
    assert how.partition(":")[0] in (project / "reports/test/bs1/06_accuracy.html").read_text()
    assert (project / "reports/test/index.html").exists()


ONE_AT_A_TIME = f"""
import pathlib, time
begun, end = pathlib.Path("at_work"), time.monotonic() + {BUSY_S}
begun.open("x").close()
while not pathlib.Path("other_waits").exists() and time.monotonic() < end:
    time.sleep(0.02)
begun.unlink()
"""


def test_two_processes_make_a_page_one_after_the_other(project: Path) -> None:
    write_spec(project, batch_sizes=[1])
    write_notebook(project, ONE_AT_A_TIME)
    write_notebook(project, "", "report")
    options = ("params/test.yaml", "--from", "06", "--to", "06", "--force")
    one = start(project, *options)
    until((project / "at_work").exists, one)
    other = start(project, *options)
    waits = "06_accuracy bs1: another process makes this page; waiting for it"
    until(lambda: waits in (project / "reports/test/run.log").read_text(), other)
    (project / "other_waits").touch()
    said = [process.communicate(timeout=2 * BUSY_S)[1] for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    assert waits in said[1]


def test_a_notebook_with_a_conflict_of_a_merge_is_named(project: Path) -> None:
    write_spec(project, batch_sizes=[1])
    path = write_notebook(project, "")
    path.write_text("<<<<<<< HEAD")
    process = start(project, "params/test.yaml", "--from", "06", "--to", "06")
    _, said = process.communicate(timeout=2 * BUSY_S)
    assert process.returncode == 1
    (line,) = without_log(said)
    assert line.startswith(f"error: {path}: cannot be read as a notebook")


NUMBERS = [name[:2] for name in lineage.NOTEBOOKS if name[0].isdigit()]
ASKED_FOR = {"waterfall": "waterfall=[torch, onnx, simplified, device]", "rehearsal": "rehearse=true"}


@pytest.mark.parametrize("notebook", [*NUMBERS, *ASKED_FOR])
def test_ctrl_c_leaves_no_process_of_a_real_stage(finished_project: Path, tmp_path: Path, notebook: str) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    numbered = ("--force", "--from", notebook, "--to", notebook)
    process = start(project, "params/mini.yaml", *(("-s", ASKED_FOR[notebook]) if notebook in ASKED_FOR else numbered))
    until(psutil.Process(process.pid).children, process)  # its kernel
    time.sleep(1)  # which starts, is at work, or has made way for the next
    until(psutil.Process(process.pid).children, process)
    code, said, left = stopped(process, signal.SIGINT, group=True)
    assert left == []
    assert code == 130
    assert said.splitlines()[-1].startswith("interrupted: what is finished is kept; go on with: python -m deit_helpers run ")
    assert "--force" not in said.splitlines()[-1]
    assert "Traceback" not in said
    assert list(project.rglob(".tmp-*")) == []
    assert "Not finished:" in (project / "reports/mini/index.html").read_text()


def test_the_command_that_an_interrupted_run_prints_goes_on_with_it(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    process = start(project, "params/mini.yaml", "-s", "expected=null", "--from", "06", "--to", "06", "--force")
    until(psutil.Process(process.pid).children, process)
    _, said, _ = stopped(process, signal.SIGINT, group=True)
    typed = shlex.split(said.rpartition("go on with: python ")[2])
    assert typed == ["-m", "deit_helpers", "run", "params/mini.yaml", "-s", "expected=null", "--from", "06", "--to", "06"]
    result = subprocess.run([sys.executable, *typed], cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "] 06_accuracy bs1 done in " in result.stderr
    assert "Not finished:" not in (project / "reports/mini/index.html").read_text()
    said = (project / "reports/mini/run.log").read_text()
    assert said.index("interrupted at [") < said.rindex("] report done in ")


PLACES = {  # names of folders in which a project may lie
    "braces": "a{b}c {0}",
    "spaces and quotes": 'my run\'s "folder"',
    "Chinese": "模型 café",
}
LOCALES: dict[str, dict[str, str]] = {"LC_ALL=C": {"LC_ALL": "C"}, "an ASCII terminal": {"PYTHONIOENCODING": "ascii"}}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("locale", LOCALES)
def test_a_project_may_lie_in_a_folder_of_any_name(project: Path, place: str, locale: str) -> None:
    folder = project / PLACES[place]
    folder.mkdir()
    code, said = run_06(folder, "open('größe', 'w').name", **LOCALES[locale])
    assert code == 0, said
    assert "größe" in (folder / "reports/test/bs1/06_accuracy.html").read_text(encoding="utf-8")
    assert (folder / "größe").exists()


class Neighbours:
    """Others who have so much of the CPU, second by second; it is the clock, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *percents: float | None):
        self.percents, self.now, self.lines = list(percents), 0, list[str]()
        monkeypatch.setattr(kernels.host, "Others", lambda: self)
        monkeypatch.setattr(kernels, "time", SimpleNamespace(sleep=self.sleep, monotonic=lambda: float(self.now)))

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds)

    def percent(self) -> tuple[float | None, float | None]:
        return self.percents[min(self.now, len(self.percents)) - 1], 0.0

    def wait(self) -> int:
        """Seconds that `wait_for_quiet` took."""
        kernels.wait_for_quiet(self.lines.append)
        return self.now


def test_on_a_quiet_machine_a_notebook_waits_five_seconds_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = Neighbours(monkeypatch, 1.0)
    assert (neighbours.wait(), neighbours.lines) == (5, [])


def test_a_notebook_waits_until_others_are_quiet_for_five_seconds_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = Neighbours(monkeypatch, 80.0, 60.0, 1.0, 1.0, 1.0, 1.0, 40.0, 1.0)
    assert neighbours.wait() == 7 + 5
    assert neighbours.lines == ["others have 80 % of the CPU: waiting for quiet, 10 minutes at most"]


def test_after_ten_minutes_it_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = Neighbours(monkeypatch, 80.0)
    assert neighbours.wait() == 601
    assert neighbours.lines[1:] == ["others still have 80 % of the CPU: going on, and the pages will say it"]


def test_where_the_system_does_not_count_a_small_workload_tells_when_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = Neighbours(monkeypatch, None)
    stood_still = iter([50.0, *[0.0] * 5])
    monkeypatch.setattr(kernels.host, "interrupted_percent", lambda: next(stood_still))
    assert neighbours.wait() == 6
    assert neighbours.lines[0].startswith("others have 50 %")


def test_ctrl_c_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = Neighbours(monkeypatch, 80.0)
    interrupted = threading.Event()
    interrupted.set()
    monkeypatch.setattr(kernels, "_interrupted", interrupted)
    with pytest.raises(DeitError, match="interrupted"):
        neighbours.wait()
    assert neighbours.now == 1
