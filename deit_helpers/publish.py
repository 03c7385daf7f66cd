"""Where the pages of a run lie, and an executed notebook -> one HTML page that makes no request."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from . import artifacts, hashing
from .artifacts import Run

# In the order they run.
NOTEBOOKS = ("01_export", "04_preprocess", "02_optimize", "03_convert", "05_infer", "06_accuracy", "07_perf", "report")
ONCE = {"01_export": "export", "04_preprocess": "dataset", "report": ""}  # run once; the folder of the page
TEMPLATES = Path(__file__).parent / "templates"


def page_path(notebook: str, run: Run) -> Path:
    """Where the executed notebook lies; its HTML page lies beside it."""
    folder = ONCE.get(notebook, f"bs{run.batch_size}")
    return run.folder / folder / f"{notebook}.ipynb"


def opened(run: Run, notebook: str) -> list[Run]:
    """The run as a notebook opens it: once, or at every batch size of the spec."""
    return [run] if notebook in ONCE else [run.at(size) for size in run.spec.batch_sizes]


def pages(run: Run) -> Iterator[tuple[str, Run, Path]]:
    """Every published page but the report: notebook, run at its batch size, HTML file."""
    for notebook in sorted(NOTEBOOKS[:-1]):
        for at in opened(run, notebook):
            path = html_path(page_path(notebook, at))
            if path.exists():
                yield notebook, at, path


def html(notebook: Path, run_folder: Path, show_code: bool = False) -> Path:
    """Render an executed notebook beside itself (the report becomes `index.html`).

    Args:
        run_folder: the folder of the run, to link back to its index.
        show_code: keep the cells' code, which is otherwise left out.
    """
    import nbformat

    node = nbformat.read(notebook, as_version=4)
    title = next((line for cell in node.cells for line in cell.source.splitlines() if line.startswith("# ")), "# Report")[2:]
    page = html_path(notebook)
    links = [] if page.parent == run_folder else [("Report", "../index.html")]
    batch = f" ({page.parent.name})" if page.parent.name.startswith("bs") else ""
    resources = {"page_title": title.partition(":")[0] + batch, "links": links}
    body, _ = _exporter(show_code).from_notebook_node(node, resources)
    artifacts.write_text(page, body)
    return page


def html_path(notebook: Path) -> Path:
    return notebook.with_name("index.html") if notebook.stem == "report" else notebook.with_suffix(".html")


@functools.lru_cache
def helpers_sha256() -> str:
    """Hash of every file of this package: a page is made again when the code that draws it changed."""
    files = sorted(p for p in Path(__file__).parent.rglob("*") if p.suffix in {".py", ".j2", ".css", ".json", ".yaml"})
    return hashing.fingerprint({str(p.relative_to(Path(__file__).parent)): hashing.sha256(p) for p in files})


def _exporter(show_code: bool):  # type: ignore[no-untyped-def]  # nbconvert has no types
    from nbconvert import HTMLExporter

    return HTMLExporter(
        extra_template_basedirs=[str(TEMPLATES)],
        template_name="report",
        exclude_input=not show_code,
        exclude_input_prompt=True,
        exclude_anchor_links=True,
    )
