"""A finished run in other forms than its pages: what `deit-report render RUN_DIR --format FORMAT` writes.

Nothing is measured or computed here: every figure is that of the run's JSON and CSV files, or of its pages.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

from .. import files
from ..errors import ArtifactError, ToolError
from ..run.folder import Run
from . import trace
from .modelzoo import modelzoo

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PRINT_LIMIT_S = 120
_LEFT_OUT = (".ipynb", ".onnx", ".om", ".lock", ".log", ".zip", ".tar.gz")
_LARGE = 5 << 20  # bytes: the store and the logits stay in the run folder


def markdown(run: Run, output: Path) -> None:
    """The text and tables of the report; of a chart and a picture what they say in words."""
    import bs4
    from markdownify import MarkdownConverter

    page = bs4.BeautifulSoup((run.folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    body = page.find("main") or page.body or page
    for tag in body.find_all(["nav", "style", "script"]):
        tag.decompose()
    for drawing in body.find_all(attrs={"role": "img"}):
        drawing.replace_with(bs4.NavigableString(f"{drawing['aria-label']} "))
    for picture in body.find_all("img"):
        picture.replace_with(bs4.NavigableString(picture["alt"]))
    text = MarkdownConverter(heading_style="atx", bullets="-", escape_misc=True).convert_soup(body)
    lines = (line.rstrip() for line in str(text).splitlines())
    files.write_text(output, "\n".join(lines).strip() + "\n")


def csv(run: Run, output: Path) -> None:
    """One row per batch size with every single figure of accuracy.json and perf.json; lists are left to the files."""
    import pandas as pd

    rows = []
    for at in run.at_each():
        contents = {name: files.read_json(at.file(name)) for name in ("accuracy", "perf")}
        if any(contents.values()):
            rows.append({"run": run.spec.run, "model": run.spec.model, "batch_size": at.batch_size, **contents})
    if not rows:
        raise ArtifactError(f"{run.folder}: nothing was scored or timed yet: run 06 or 07 first")
    table = pd.json_normalize(rows)
    lists = [name for name in table if table[name].map(lambda value: isinstance(value, list)).any()]
    files.write_text(output, table.drop(columns=lists).to_csv(index=False))


def pdf(run: Run, output: Path) -> None:
    """The report as a browser prints it.

    Raises:
        ToolError: no browser of Chromium's family is here, or it made nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ToolError(f"pdf: needs one of {', '.join(BROWSERS)} on the PATH: install one, or print index.html by hand")
    with files.atomic(output) as temporary:
        page = (run.folder / "index.html").as_uri()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={temporary}"]
        try:
            done = subprocess.run([browser, *flags, page], capture_output=True, timeout=PRINT_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as err:
            raise ToolError(f"pdf: {browser} did not end within {PRINT_LIMIT_S} s: print index.html by hand") from err
        if done.returncode or not temporary.stat().st_size:
            raise ToolError(f"pdf: {browser} ended with exit code {done.returncode}: print index.html by hand")


def archive(run: Run, output: Path) -> None:
    """The pages and the files behind their figures, to be mailed: links between pages work where it is unpacked."""
    with files.atomic(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(run.folder.rglob("*")):
            inside = path.relative_to(run.folder)
            wanted = path.is_file() and path.stat().st_size <= _LARGE and not path.name.endswith(_LEFT_OUT)
            if wanted and inside.parts[0] != "demo" and path != output and not path.name.startswith(".tmp-"):
                target.write(path, Path(run.folder.name) / inside)


def perfetto(run: Run, output: Path) -> None:
    """Batches and operators as a trace that Perfetto and chrome://tracing open."""
    events = [event for at in run.at_each() for event in trace.events(at)]
    if not events:
        raise ArtifactError(f"{run.folder}: nothing was timed yet: run 05 and 07 first")
    files.write_text(output, json.dumps({"displayTimeUnit": "ms", "traceEvents": events}))


FORMATS: dict[str, tuple[str, Callable[[Run, Path], None]]] = {
    "markdown": ("report.md", markdown),
    "csv": ("results.csv", csv),
    "modelzoo-zh": ("README.zh-CN.md", functools.partial(modelzoo, language="zh")),
    "modelzoo-en": ("README.md", functools.partial(modelzoo, language="en")),
    "pdf": ("report.pdf", pdf),
    "zip": ("report.zip", archive),
    "perfetto": ("trace.json", perfetto),
}


def write(run: Run, form: str, output: Path | None = None) -> Path:
    """Write the run in a form, one of FORMATS; into the run folder unless `output` says otherwise.

    Raises:
        ArtifactError: what it needs is not there yet, or the file cannot be written.
        ToolError: no browser for `pdf`.
    """
    name, writer = FORMATS[form]
    target = (output or run.folder / name).resolve()
    files.write_dir(target.parent)
    try:
        writer(run, target)
    except OSError as err:
        raise files.unwritable(target, err) from err
    return target
