"""An executed notebook -> one HTML page beside it that makes no request."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

from .. import files
from ..run.folder import html_path

_one_at_a_time = threading.Lock()  # an exporter keeps what it knows of a notebook in itself


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
    with _one_at_a_time:
        body, _ = _exporter(show_code).from_notebook_node(node, resources)
    files.write_text(page, body)
    return page


@functools.cache
def _exporter(show_code: bool):  # type: ignore[no-untyped-def]  # nbconvert has no types
    from nbconvert import HTMLExporter

    return HTMLExporter(
        extra_template_basedirs=[str(Path(__file__).parent)],
        template_name="templates",
        exclude_input=not show_code,
        exclude_input_prompt=True,
        exclude_anchor_links=True,
    )
