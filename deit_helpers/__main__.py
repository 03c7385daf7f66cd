"""The command line: `deit-report`, or `python -m deit_helpers`."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, open_run
from .errors import MOST_CHARACTERS, DeitError, SpecError, one_line
from .files import is_utf8
from .run.folder import Run
from .run.validation import given_path, nearest, parse_yaml

if TYPE_CHECKING:
    from .pipeline import Step
    from .terminal import Terminal

PATH = click.types.FuncParamType(given_path)
PATH.name = "path"  # in --help
ADDED = "Run this batch size alone: an addition to those of a run that exists, else instead of the spec's."
PLANNED = "Print what would run, why, for how long, and which inputs are missing (then the exit code is 1); run nothing."


class _Group(click.Group):
    """Shows what a user can mend as one line and exits with 1; with --debug, as a traceback."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        return _parsed(super().make_context, *args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
        for name in ("SIGTERM", "SIGHUP"):  # they end a run as Ctrl-C does, unless a nohup says otherwise
            if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
        try:
            return _parsed(super().invoke, ctx)
        except (DeitError, OSError) as err:
            if ctx.params.get("debug") or isinstance(err, BrokenPipeError):
                raise
            text = str(err)
            if isinstance(err, OSError) and err.filename is not None:
                text = f"{err.filename}: {err.strerror}; unlock it, or run elsewhere"
            click.echo(f"error: {one_line(text, MOST_CHARACTERS)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as err:
            click.echo(f"interrupted: what is finished is kept; go on with: {_resume_command()}", err=True)
            (code,) = err.args or (128 + signal.SIGINT,)
            sys.stdout.flush()
            os._exit(code)  # a thread may draw a page, and taking libraries down takes a while: nobody waits for either


def _resume_command() -> str:
    """The command as it was typed, without `--force`: what it forgot is not made twice."""
    program = Path(sys.argv[0]).name
    typed = ["python", "-m", __package__] if program == "__main__.py" else [program]
    return shlex.join([*typed, *(word for word in sys.argv[1:] if word != "--force")])


def _parsed(parse: Callable[..., Any], *args: Any, **extra: Any) -> Any:
    """What `parse` returns; its errors of usage quote what was typed, however long that is."""
    try:
        return parse(*args, **extra)
    except click.UsageError as err:
        err.message = one_line(err.message, 400)  # type: ignore[misc]
        raise


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(128 + number)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__)
def main(debug: bool) -> None:
    """Prove that a vision transformer ported to an accelerator is right and fast."""


@main.command()
@click.argument("spec", type=PATH, default="params/demo.yaml")
@click.option("-b", "--batch-size", "batch_sizes", type=int, multiple=True, help=ADDED)
@click.option("-s", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of the spec.")
@click.option("--from", "first", metavar="NN", help="First notebook to run, such as 05.")
@click.option("--to", "last", metavar="NN", help="Last notebook to run before the report.")
@click.option("--force", is_flag=True, help="Make everything again, whatever is current.")
@click.option("--wait-for-quiet", is_flag=True, help="Measure when others leave the CPU alone; wait 10 minutes at most.")
@click.option("--plan", "plan_only", is_flag=True, help=PLANNED)
def run(
    spec: Path, batch_sizes: tuple[int, ...], settings: tuple[str, ...], plan_only: bool, wait_for_quiet: bool, **which: Any
) -> None:
    """Run the notebooks of SPEC that are not current and publish the report."""
    from .terminal import Terminal

    overrides = dict(_setting(text) for text in settings)
    given = Run.resolve(spec, overrides=overrides)
    with Terminal(given.folder, _resume_command()) as screen:  # before what takes seconds: imports, hashes of large files
        from . import pipeline
        from .model import timm_config
        from .stages.accuracy import require_pass

        if batch_sizes:
            overrides["batch_sizes"] = pipeline.sizes_with(given, batch_sizes)
        opened = timm_config.resolved(Run.resolve(spec, overrides=overrides))
        steps = pipeline.plan(opened, **which, sizes=batch_sizes)
        needed = any(step.why for step in steps)
        if not plan_only:
            opened.save_spec()
            if needed:
                pipeline.execute(steps, screen, wait_for_quiet)
    if plan_only:
        _print_plan(steps)
    else:
        _conclude(opened, screen, "" if needed else f"nothing to do, all {len(steps)} pages are current: ")
        require_pass(opened)


def _conclude(run: Run, screen: Terminal, before: str = "") -> None:
    """Say what came of a run and what to doubt, and print where its page is: that alone is output."""
    from .report import index
    from .report.words import preprocessing
    from .run.expected import for_dataset

    for line in index.lines(run):
        screen.say(line, shown=False)
        click.echo(line, err=True)
    click.echo(f"{before}{run.folder / 'index.html'}")
    recipe = preprocessing(run)
    for warning in filter(None, [for_dataset(run)[1], recipe and f"preprocessing: {recipe}"]):
        click.echo(f"warning: {warning}", err=True)


def _print_plan(steps: list[Step]) -> None:
    """Exits with 1 where a step would not find what it needs."""
    from . import pipeline
    from .report import accuracy
    from .terminal import duration

    took = [pipeline.seconds(step) if step.why else 0.0 for step in steps]
    for step, seconds in zip(steps, took, strict=True):
        estimate = "?" if seconds is None else duration(seconds) if seconds else ""
        click.echo(f"{'run ' if step.why else 'keep'}  {step.name:20} {estimate:>6}  {step.why}".rstrip())
    total = duration(sum(filter(None, took)))
    click.echo(f"in all {total}, as its stages took in this run before{' (?: none did)' * (None in took)}")
    errors = pipeline.missing(steps)
    for error in errors:
        click.echo(f"missing  {error}")
    needed = accuracy.plan(steps[-1].run)
    click.echo(f"\n{needed.caption}")
    for cells in (needed.formats, *map(needed.texts, needed.rows)):
        click.echo(" | ".join(cells))
    if errors:
        sys.exit(1)


@main.command()
@click.argument("run_dir", type=PATH)
@click.option("--code", is_flag=True, help="Unfold the code of the cells.")
@click.option("--format", "form", help="Instead: markdown, csv, pdf, zip, perfetto, modelzoo-zh or modelzoo-en.")
@click.option("-o", "--output", type=PATH, help="The file to write with --format; one in RUN_DIR without.")
def render(run_dir: Path, code: bool, form: str | None, output: Path | None) -> None:
    """Rebuild the pages of RUN_DIR from what is there, or the page of one executed .ipynb; or write the run in another form."""
    from . import pipeline
    from .delivery import formats
    from .report import html

    if form is not None and form not in formats.FORMATS:
        raise SpecError(f"--format {form}: one of {', '.join(formats.FORMATS)}{nearest(form, list(formats.FORMATS))}")
    if output and not form:
        raise SpecError(f"-o {output}: say with --format what to write there, such as --format zip")
    if run_dir.suffix == ".ipynb":
        click.echo(str(html.html(run_dir, show_code=code)))
        return
    opened = open_run(_spec_of(run_dir))
    click.echo(str(formats.write(opened, form, output) if form else pipeline.render(opened, code)))


@main.command("import")
@click.argument("run_dir", type=PATH)
@click.option("-b", "--batch-size", type=int, required=True, help="The batch size that was measured.")
@click.option("--perf", type=PATH, required=True, help="perf_vision_…txt, PureInfer_…txt, a recipe's .md, *_sum(m)ary.json.")
@click.option("--dumps", type=PATH, help="Folder of one output file per image.")
@click.option("--prof", type=PATH, help="Folder of msprof.")
@click.option("--batches", type=click.IntRange(min=1), help="How many the profile is of, where its counts do not tell.")
@click.option("--devices", type=click.IntRange(min=1), default=1, help="On the card: 4 on an Atlas 300I, 1 on a 310P.")
@click.option("--device", default="an Ascend device elsewhere", help="What was measured, in words.")
def import_(run_dir: Path, batch_size: int, perf: Path, dumps: Path | None, prof: Path | None, **measured: Any) -> None:
    """Bring the files of a vendor's tool, measured elsewhere, into RUN_DIR (or a spec's), and publish its report."""
    from . import imported, pipeline
    from .stages.accuracy import require_pass
    from .terminal import Terminal

    path = run_dir if run_dir.is_file() else _spec_of(run_dir)
    sizes = Run.resolve(path).spec.batch_sizes
    if batch_size not in sizes:
        raise SpecError(f"-b {batch_size}: the run has batch sizes {list(sizes)}: name one of them")
    opened = open_run(path, batch_size)
    imported.import_results(opened, perf, dumps, prof, **measured)
    steps = pipeline.plan(opened, "05" if dumps else "07", "07")
    mine = [step for step in steps if step.run.batch_size in (None, batch_size)]
    with Terminal(opened.folder, _resume_command()) as screen:
        pipeline.execute(mine, screen)
    _conclude(opened, screen)
    if dumps:
        require_pass(opened)


@main.command()
@click.argument("run_dir", type=PATH)
@click.option("-o", "--output", type=PATH, help="The file to write; <run>.tar.gz without, <run>.audit.tar.xz with --audit.")
@click.option("--audit", is_flag=True, help="At most 2 MB, for `verify`: answers instead of logits, no images and graphs.")
def pack(run_dir: Path, output: Path | None, audit: bool) -> None:
    """Put RUN_DIR into one file to carry to a device host: everything 03 to 07 need, without the demo's images."""
    from .delivery import bundle

    spec = _spec_of(run_dir)
    path = output or Path(f"{run_dir.resolve().name}{'.audit.tar.xz' if audit else '.tar.gz'}")
    if audit:
        left_out = bundle.pack_audit(Run.resolve(spec), path)
        click.echo(f"left out: {one_line(', '.join(sorted(left_out, key=lambda name: -left_out[name])), 400)}", err=True)
    else:
        bundle.pack(spec.parent, path)
    click.echo(str(path))


@main.command()
@click.argument("base", type=PATH)
@click.argument("new", type=PATH)
@click.option("--max-drop", type=click.FloatRange(0, 100), default=1.0, help="Points of Acc@1 that may be lost [1]; 100: any.")
@click.option("--max-slowdown", type=click.FloatRange(0, 100), default=5.0, help="Percent of the rate, likewise [5]; 100: any.")
def compare(base: Path, new: Path, **limits: float) -> None:
    """Is run NEW as right and as fast as run BASE? Exit code 0: pass, 1: fail, 2: inconclusive, or not comparable."""
    from . import pipeline

    page, facts = pipeline.compare(base, new, **limits)
    click.echo(f"{one_line(facts['line'], MOST_CHARACTERS)}\n{page}")
    sys.exit(("pass", "fail", "inconclusive").index(facts["verdict"]))


def _spec_of(run_dir: Path) -> Path:
    if not (run_dir / "spec.yaml").exists():
        raise SpecError(f"{run_dir}: no run folder, it has no spec.yaml; give a folder such as reports/demo")
    return run_dir.resolve() / "spec.yaml"


@main.command()
@click.argument("run_dir", type=PATH, required=False)
def doctor(run_dir: Path | None) -> None:
    """What this machine can run, what is missing and how to get it; with RUN_DIR, how fast each backend runs its graph."""
    from .doctor import examine, time_backends

    rows = examine()
    if run_dir:
        opened = Run.resolve(_spec_of(run_dir))
        rows += time_backends(opened.at(8 if 8 in opened.spec.batch_sizes else opened.spec.batch_sizes[-1]))
    for row in rows:
        click.echo(f"{'ok     ' if row.ok else 'missing'}  {row.what:52} {row.detail}")


@main.command()
@click.argument("given", type=PATH, metavar="RUN")
def verify(given: Path) -> None:
    """Check RUN, a run folder or a file of `pack`: hashes, figures and pages, from raw predictions; exit 1 if any differs."""
    from .audit.verify import verify as check
    from .explore import OpenedRun

    wrong = check(given if given.is_file() else _spec_of(given).parent, OpenedRun.resolve, click.echo)
    sys.exit(1 if wrong else 0)


@main.command()
@click.argument("path", type=PATH)
def audit(path: Path) -> None:
    """Name figures that contradict each other in PATH, a run folder or the text of a recipe; exit 1 where some do."""
    from .audit import recipe_rules, rules

    rows = recipe_rules.check(path) if path.is_file() else rules.check(Run.resolve(_spec_of(path)))
    for row in sorted(rows, key=lambda row: row.outcome):  # what is broken first
        click.echo(f"{row.outcome:15} {row.rule:18} {row.detail or row.statement}")
    sys.exit(1 if any(row.outcome == rules.BROKEN for row in rows) else 0)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"-s {text}: expected KEY=VALUE, such as -s opset=13")
    if not is_utf8(value):  # a path; YAML has no such characters
        return key, value
    return key, parse_yaml(value, f"-s {text}")


if __name__ == "__main__":
    sys.exit(main())
