"""Plan the notebooks of a run, execute them with papermill, publish them with nbconvert, resume where it stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import files, kernels
from .data.labels import real_labels
from .data.sources import label_images, list_folder
from .errors import ArtifactError, DeitError, SpecError, StoppedError, ToolError
from .model import checkpoint_files
from .report import html, index
from .report.elements import Banner
from .report.words import notes
from .run import hashing, journal, records
from .run.expected import expected_row
from .run.folder import Run, html_path, notebook_source
from .run.lineage import NOTEBOOKS, PAGE_CODE, STAGES
from .run.spec import RunSpec
from .terminal import Terminal

FORCED = "forced"  # the reason of a step whose files are made again whether current or not
PAGE_S = 5.0  # what a page takes besides its stages: a kernel starts, the page is drawn
STEPS = tuple(name for name in NOTEBOOKS if name != "report")


@dataclass(frozen=True)
class Step:
    """One notebook to run. `why` is empty when its page and files are current."""

    notebook: str
    run: Run
    why: str

    @property
    def name(self) -> str:
        return f"{self.notebook} bs{self.run.batch_size}" if self.run.batch_size else self.notebook


def plan(
    run: Run, first: str | None = None, last: str | None = None, force: bool = False, sizes: tuple[int, ...] = ()
) -> list[Step]:
    """The notebooks of a run in order, each with the reason to run it. Reads files, changes nothing.

    Args:
        first, last: numbers of notebooks, such as `05`; the others are left out, but the report is always made.
        sizes: the batch sizes to run, or all. Of the others only the pages that are there and show all sizes are made again.

    Raises:
        SpecError: `first` or `last` is no notebook's number.
    """
    notebooks, asked = _between(run, first, last), (None, *(sizes or run.spec.batch_sizes))
    expected_row(run)  # what is wrong with it would otherwise be found after hours of inference
    if run.spec.real_labels and run.image_folder.is_dir():  # not on a device host
        real_labels(run, [])
    steps: list[Step] = []
    for notebook in notebooks:
        for at in run.at_each(NOTEBOOKS[notebook].per_batch):
            why = FORCED if force and at.batch_size in asked else _why(notebook, at)
            earlier = [step for step in steps if step.why and step.run.batch_size in (None, at.batch_size, run.batch_size)]
            if not why and (earlier or (notebook == "report" and any(step.why for step in steps))):
                why = f"if {earlier[0].name} changes what it reads" if earlier else "a page changed"
            if at.batch_size in asked or (NOTEBOOKS[notebook].shows and html_path(at.page(notebook)).exists()):
                steps.append(Step(notebook, at, why))
    return steps


def sizes_with(run: Run, sizes: tuple[int, ...]) -> list[int]:
    """The batch sizes that a run folder has, and those to add."""
    saved = run.folder / "spec.yaml"
    before = RunSpec.load(saved).batch_sizes if saved.exists() else ()
    return list(dict.fromkeys([*before, *sizes]))


def missing(steps: list[Step]) -> list[str]:
    """The errors that steps to run would end with for want of images, labels or the checkpoint."""
    planned = [(step.run, stage) for step in steps if step.why for stage in records.stages_of(step.run, step.notebook)]
    needed = {name for run, stage in planned for name in records.inputs_of(run, stage)}
    run, errors = steps[-1].run, list[str]()
    checks: list[tuple[bool, Callable[[], object]]] = [
        ("source" in needed and run.spec.images != "demo", lambda: label_images(run, list_folder(run), run.classes)),
        ("checkpoint" in needed and run.spec.checkpoint != "hub", lambda: checkpoint_files.check(run.checkpoint)),
    ]
    for is_needed, check in checks:
        try:
            is_needed and check()
        except DeitError as err:
            errors.append(str(err))
    return errors


def seconds(step: Step) -> float | None:
    """How long a step will take, by what its stages took in this run before, at another batch size where not at its own.

    A step that runs only if an earlier one changes what it reads is taken to run. None where a stage is new.
    """
    whole, run = step.why == FORCED or step.why.startswith("if "), step.run
    stages = [stage for stage in records.stages_of(run, step.notebook) if whole or records.problem(run, stage)]
    took = [[records.read_record(at, stage).get("seconds") for at in (run, *run.at_each())] for stage in stages]
    known = [next((value for value in values if value is not None), None) for values in took]
    return None if None in known else PAGE_S + sum(filter(None, known))


def execute(steps: list[Step], screen: Terminal, wait_for_quiet: bool = False) -> None:
    """Run the steps that are forced or needed; each is judged again when its turn comes.

    A verdict that is not `pass` is no error here: the pages show it, and `accuracy.require_pass` says it from the files.

    Raises:
        DeitError: a notebook failed; its page is published with the error in it, the rest is not run but the report.
        KeyboardInterrupt: Ctrl-C; `index.html` says where, and what goes on from there.
    """
    import jupyter_client.manager  # noqa: F401
    import papermill  # noqa: F401 - seconds in which Ctrl-C stops nothing yet; two threads would find it half made

    screen.say(screen.command, shown=False)
    _forget([step for step in steps if step.why == FORCED])
    numbers = itertools.count(1)

    def run_in_turn(lane: list[Step]) -> None:
        for step in lane:
            label = f"[{next(numbers)}/{len(steps)}] {step.name}"
            with _page_lock(step, screen.say):
                _check_spec(step.run)
                if step.why == FORCED or _why(step.notebook, step.run):
                    if wait_for_quiet and NOTEBOOKS[step.notebook].alone:
                        kernels.wait_for_quiet(screen.say)
                    with screen.step(label, _progress(step), html_path(step.run.page(step.notebook))):
                        _run_notebook(step)

    try:
        for notebook, lanes in _lanes(steps):
            try:
                kernels.in_threads(run_in_turn, lanes, 1 if NOTEBOOKS[notebook].alone else os.cpu_count())
            except DeitError:
                if notebook != "report":  # it must not go on showing what held before
                    with contextlib.suppress(DeitError):  # the first error is the one to mend
                        _make_report(steps[-1], screen.say)
                raise
    except KeyboardInterrupt:
        _publish_interrupted(steps[-1].run, screen)
        raise


def _publish_interrupted(run: Run, screen: Terminal) -> None:
    """Say on `index.html` what is not finished. Without a kernel: the prompt must be back in two seconds."""
    kernels.remove_unfinished(run.folder)
    run.page_record("report").unlink(missing_ok=True)  # so that it is made again
    text = f"interrupted at {' and '.join(screen.steps) or 'the start of a step'}; go on with: {screen.command}"
    html.mark(run.folder / "index.html", Banner("inconclusive", "Not finished:", text), index.pages(run))
    screen.say(text, shown=False)


def _make_report(step: Step, say: Callable[[str], None], show_code: bool = False) -> None:
    with _page_lock(step, say):
        kernels.in_threads(lambda step: _run_notebook(step, show_code), [step], 1)


def _check_spec(run: Run) -> None:
    """Raises ArtifactError where another command gave the run folder another spec, which the notebooks would read."""
    path = run.folder / "spec.yaml"
    if path.exists() and RunSpec.load(path) != run.spec:
        raise ArtifactError(
            f"{path}: another command changed it meanwhile: run one after the other, or give each its own `run`"
        )


@contextlib.contextmanager
def _page_lock(step: Step, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a page: another process that makes it, too, is waited for."""
    path = step.run.page_record(step.notebook).with_suffix(".lock")
    files.write_dir(path.parent)
    lock = FileLock(path)
    try:
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            say(f"{step.name}: another process makes this page; waiting for it")
            held = lock.acquire()
    except OSError as err:
        raise files.unwritable(path, err) from err
    with held:
        yield


def _forget(steps: list[Step]) -> None:
    for step in steps:
        for stage in records.stages_of(step.run, step.notebook):
            records.forget(step.run, stage)
        if step.notebook == "05_infer":
            journal.discard(step.run, step.run.spec.shards)  # others may have come from elsewhere
        if step.notebook == "waterfall":
            from .evidence import rungs  # imports onnx, which no other command of this module needs

            rungs.discard(step.run)


def _lanes(steps: list[Step]) -> Iterator[tuple[str, list[list[Step]]]]:
    """The steps in groups that run one after the other; the lanes of a group run side by side, a batch size in each."""
    for notebook, group in itertools.groupby(steps, key=lambda step: NOTEBOOKS[step.notebook].beside or step.notebook):
        lanes: dict[int | str, list[Step]] = {}
        for step in group:
            lanes.setdefault(step.run.batch_size or step.notebook, []).append(step)
        yield notebook, list(lanes.values())


def render(run: Run, show_code: bool = False) -> Path:
    """Publish every executed notebook again and rebuild `index.html` from what is there."""
    _publish_all(run, show_code, only_new=True)  # the report links what was executed by hand, too, and publishes them all
    _make_report(Step("report", run, "asked for"), lambda line: None, show_code)
    return run.folder / "index.html"


def _publish_all(run: Run, show_code: bool, only_new: bool = False) -> None:
    """Every page again from its executed notebook: only now the links from one to the next are known."""
    for notebook in STEPS:
        for at in run.at_each(NOTEBOOKS[notebook].per_batch):
            if at.page(notebook).exists() and not (only_new and html_path(at.page(notebook)).exists()):
                with _page_lock(Step(notebook, at, "asked for"), lambda line: None):
                    html.html(at.page(notebook), at, show_code)
                    _sign(notebook, at)


def compare(base: Path, new: Path, max_drop: float, max_slowdown: float) -> tuple[Path, dict[str, Any]]:
    """Compare two run folders and publish the page; returns it and the content of `compare.json`.

    Raises:
        SpecError: no run folder.
        DeitError: a file of a run is damaged, or one cannot be written.
    """
    from .compare import judge  # no other command of this module needs it

    before, now = judge.opened(base), judge.opened(new)
    page, source = judge.folder_of(before, now) / "compare.ipynb", notebook_source("compare")
    files.write_dir(page.parent)
    limits = {"max_drop": max_drop, "max_slowdown": max_slowdown}
    parameters = {"base": str(before.folder), "new": str(now.folder), **limits}
    kernels.in_threads(lambda page: kernels.execute(source, page, parameters, now.root, None), [page], 1)
    return html.html(page, now), files.read_json(page.with_suffix(".json"))


def _between(run: Run, first: str | None, last: str | None) -> list[str]:
    """The notebooks of a run in order: those that have a number by it, the others where no last one is named."""
    numbers = sorted(name[:2] for name in STEPS if name[0].isdigit())
    for value in (first, last):
        if value is not None and value not in numbers:
            raise SpecError(f"no notebook {value!r}: give a number from {numbers[0]} to {numbers[-1]}")
    if first and last and first > last:
        raise SpecError(f"--from {first} --to {last}: nothing lies between; swap them")
    planned = [name for name, row in NOTEBOOKS.items() if run.asks_for(name) and not row.by_hand]
    return [name for name in planned if name == "report" or (first or "") <= name[:2] <= (last or "zz")]  # letters stand last


def _why(notebook: str, run: Run) -> str:
    """Why a page must be made, or an empty string."""
    for stage in records.stages_of(run, notebook):
        if why := records.problem(run, stage):
            return f"{stage}: {why}"
    page = run.page(notebook)
    record = files.read_json(run.page_record(notebook))
    if not record or not page.exists() or not html_path(page).exists():
        return "no page yet"
    if "stopped" in record:
        return "it stopped with an error"
    changed = [name for name, value in _page_key(notebook, run).items() if record.get(name) != value]
    return f"changed: {', '.join(changed)}" if changed else ""


def _progress(step: Step) -> Path:
    """Where the step tells how far it is; named as what is unfinished, which is not packed."""
    path = step.run.page_record(step.notebook)
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def _page_key(notebook: str, run: Run) -> dict[str, Any]:
    shown = [(stage, run) for stage in records.stages_of(run, notebook)]
    sizes = run.at_each()
    shown += [(s, at) for s in NOTEBOOKS[notebook].shows for at in (sizes if STAGES[s].per_batch else sizes[:1])]
    spec = run.spec.model_dump(mode="json") if notebook == "report" else {}  # the others show what their stages recorded
    return {
        "notebook": _notebook_sha256(notebook_source(notebook)),
        "helpers": hashing.code_sha256(PAGE_CODE),
        "notes": hashing.fingerprint([index.state(run), index.since(run)] if notebook == "report" else notes(run)),
        "spec": hashing.fingerprint(spec),
        "lang": run.spec.lang,
        "files": hashing.fingerprint([records.hashes(at, stage) for stage, at in shown]),
        "state": hashing.fingerprint([records.problem(at, stage, strict=False) for stage, at in shown]),
    }


def _notebook_sha256(path: Path) -> str:
    """Hash of what is executed and read, not of outputs, counts, empty cells and the kernel, which Jupyter saves with it."""
    cells = files.read_json(path).get("cells", [])
    return hashing.fingerprint(
        [(c["cell_type"], "".join(c["source"]), c["metadata"].get("tags")) for c in cells if c["source"]]
    )


def _run_notebook(step: Step, show_code: bool = False) -> None:
    """Execute and publish one notebook; an error inside it becomes the DeitError it was."""
    run, page, source = step.run, step.run.page(step.notebook), notebook_source(step.notebook)
    files.write_dir(page.parent)
    html.read(source)
    run.page_record(step.notebook).unlink(missing_ok=True)
    failure: DeitError | None = None
    parameters = {"spec": str(run.folder / "spec.yaml"), "batch_size": run.batch_size}
    try:
        kernels.execute(source, page, parameters, run.root, _progress(step))
    except StoppedError:
        raise
    except DeitError as err:
        failure = type(err)(f"{step.name}: {err}")
        failure.__cause__ = err  # with the traceback, for the log
        if isinstance(err, ToolError):  # of the kernel, not of a cell
            html.add_error(page, failure)
    except OSError as err:
        raise files.unwritable(page, err) from err
    html.html(page, run, show_code)
    if step.notebook == "report":
        _publish_all(run, show_code)
    if failure:
        files.write_json(run.page_record(step.notebook), {"stopped": str(failure)})
        raise failure
    files.write_json(run.page_record(step.notebook), _page_key(step.notebook, run))
    _sign(step.notebook, run)


def _sign(notebook: str, run: Run) -> None:
    """Add to a page's record the hashes of what was published, for `verify`; a page that has none is made again anyway."""
    path, made = run.page_record(notebook), [html_path(run.page(notebook))]
    made += [run.folder / "manifest.json"] if notebook == "report" else []
    if record := files.read_json(path):
        outputs = {
            run.relative(file): {"sha256": hashing.sha256(file), "bytes": file.stat().st_size} for file in made if file.exists()
        }
        files.write_json(path, record | {"outputs": outputs})
