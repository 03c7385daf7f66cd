"""The command line: `deit-report`, or `python -m deit_helpers`."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from . import __version__, open_run
from .errors import MOST_CHARACTERS, DeitError, SpecError, one_line
from .files import is_utf8
from .run.folder import Run
from .run.spec import RunSpec
from .run.validation import given_path, parse_yaml

PATH = click.types.FuncParamType(given_path)
PATH.name = "path"  # in --help


class _Group(click.Group):
    """Shows what a user can mend as one line and exits with 1; with --debug, as a traceback."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _short_usage_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
        for name in ("SIGTERM", "SIGHUP"):  # they end a run as Ctrl-C does, unless a nohup says otherwise
            if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
        try:
            with _short_usage_errors():
                return super().invoke(ctx)
        except (DeitError, OSError) as err:
            if ctx.params.get("debug") or isinstance(err, BrokenPipeError):
                raise
            text = str(err)
            if isinstance(err, OSError) and err.filename is not None:
                text = f"{err.filename}: {err.strerror}; unlock it, or run elsewhere"
            click.echo(f"error: {one_line(text, MOST_CHARACTERS)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as err:
            click.echo("interrupted: what is finished is kept, and the same command goes on from there", err=True)
            ctx.exit(*err.args or (128 + signal.SIGINT,))


@contextlib.contextmanager
def _short_usage_errors() -> Iterator[None]:
    try:
        yield
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
@click.option("-b", "--batch-size", "batch_sizes", type=int, multiple=True, help="Instead of the spec's batch sizes.")
@click.option("-s", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of the spec.")
@click.option("--from", "first", metavar="NN", help="First notebook to run, such as 05.")
@click.option("--to", "last", metavar="NN", help="Last notebook to run before the report.")
@click.option("--force", is_flag=True, help="Make everything again, whatever is current.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would run, and why; run nothing.")
def run(spec: Path, batch_sizes: tuple[int, ...], settings: tuple[str, ...], plan_only: bool, **which: Any) -> None:
    """Run the notebooks of SPEC that are not current and publish the report."""
    from . import pipeline
    from .model import timm_config
    from .report import accuracy
    from .report.words import preprocessing
    from .run.expected import for_dataset
    from .stages.accuracy import require_pass

    overrides = dict(_setting(text) for text in settings)
    if batch_sizes:
        overrides["batch_sizes"] = list(batch_sizes)
    opened = timm_config.resolved(Run.resolve(spec, overrides=overrides))
    steps = pipeline.plan(opened, **which)
    if plan_only:
        for step in steps:
            click.echo(f"{'run ' if step.why else 'keep'}  {step.name:20} {step.why}".rstrip())
        needed = accuracy.plan(opened)
        click.echo(f"\n{needed.caption}")
        for cells in (needed.formats, *map(needed.texts, needed.rows)):
            click.echo(" | ".join(cells))
        return
    opened.save_spec()
    page = opened.folder / "index.html"
    if any(step.why for step in steps):
        pipeline.execute(steps, which["force"], lambda line: click.echo(line, err=True))
        click.echo(str(page))
    else:
        click.echo(f"nothing to do, all {len(steps)} pages are current: {page}")
    recipe = preprocessing(opened)
    for warning in filter(None, [for_dataset(opened)[1], recipe and f"preprocessing: {recipe}"]):
        click.echo(f"warning: {warning}", err=True)
    require_pass(opened)


@main.command()
@click.argument("run_dir", type=PATH)
@click.option("--code", is_flag=True, help="Show the code of the cells.")
def render(run_dir: Path, code: bool) -> None:
    """Rebuild the pages and index.html of RUN_DIR from what is there."""
    from . import pipeline

    click.echo(str(pipeline.render(open_run(_spec_of(run_dir)), code)))


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

    path = run_dir if run_dir.is_file() else _spec_of(run_dir)
    sizes = RunSpec.load(path).batch_sizes
    if batch_size not in sizes:
        raise SpecError(f"-b {batch_size}: the run has batch sizes {list(sizes)}: name one of them")
    opened = open_run(path, batch_size)
    imported.import_results(opened, perf, dumps, prof, **measured)
    steps = pipeline.plan(opened, "05" if dumps else "07", "07")
    mine = [step for step in steps if step.run.batch_size in (None, batch_size)]
    pipeline.execute(mine, False, lambda line: click.echo(line, err=True))
    click.echo(str(opened.folder / "index.html"))
    if dumps:
        require_pass(opened)


@main.command()
@click.argument("run_dir", type=PATH)
@click.option("-o", "--output", type=PATH, help="The file to write; <run>.tar.gz without.")
def pack(run_dir: Path, output: Path | None) -> None:
    """Put RUN_DIR into one file to carry to a device host: everything 03 to 07 need, without the demo's images."""
    from .audit.bundle import pack as write

    click.echo(str(write(_spec_of(run_dir).parent, output or Path(f"{run_dir.resolve().name}.tar.gz"))))


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
@click.argument("path", type=PATH)
def audit(path: Path) -> None:
    """Name figures that contradict each other in PATH, a run folder or the text of a recipe; exit 1 where some do."""
    from .audit import recipe_rules, rules

    rows = recipe_rules.check(path) if path.is_file() else rules.check(Run.resolve(_spec_of(path)))
    for row in sorted(rows, key=lambda row: row.outcome):  # what is broken first
        click.echo(f"{row.outcome:15} {row.rule:18} {row.detail or row.statement}")
    click.get_current_context().exit(int(any(row.outcome == rules.BROKEN for row in rows)))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"-s {text}: expected KEY=VALUE, such as -s opset=13")
    if not is_utf8(value):  # a path; YAML has no such characters
        return key, value
    return key, parse_yaml(value, f"-s {text}")


if __name__ == "__main__":
    sys.exit(main())
