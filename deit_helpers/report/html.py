"""An executed notebook -> one HTML page beside it that makes no request."""

from __future__ import annotations

import functools
import os
import re
import threading
from pathlib import Path

from .. import files
from ..errors import ArtifactError
from ..run.folder import html_path
from .elements import Banner, Links

_MAIN = '<main id="main"[^>]*>'
_one_at_a_time = threading.Lock()  # an exporter keeps what it knows of a notebook in itself


def html(notebook: Path, run_folder: Path, show_code: bool = False) -> Path:
    """Render an executed notebook beside itself (the report becomes `index.html`).

    Args:
        run_folder: the folder of the run, to link back to its index.
        show_code: keep the cells' code, which is otherwise left out.
    """
    node = read(notebook)
    title = next((line for cell in node.cells for line in cell.source.splitlines() if line.startswith("# ")), "# Report")[2:]
    page = html_path(notebook)
    links = [] if notebook.stem == "report" else [("Report", os.path.relpath(run_folder / "index.html", page.parent))]
    batch = f" ({page.parent.name})" if page.parent.name.startswith("bs") else ""
    resources = {"page_title": title.partition(":")[0] + batch, "links": links}
    with _one_at_a_time:
        body, _ = _exporter(show_code).from_notebook_node(node, resources)
    files.write_text(page, body)
    return page


def read(notebook: Path):  # type: ignore[no-untyped-def]  # nbformat has no types
    """The notebook in a file.

    Raises:
        ArtifactError: there is none in it, such as after a merge or a full disk.
    """
    import nbformat

    strange = (LookupError, AttributeError, TypeError, RecursionError, nbformat.ValidationError)  # JSON, but no notebook
    try:
        return nbformat.read(notebook, as_version=4)
    except (OSError, ValueError, *strange) as err:
        hint = "make the page again with `deit-report run`, or restore the notebook"
        raise ArtifactError(f"{notebook}: cannot be read as a notebook ({err}): {hint}") from err


def add_error(notebook: Path, error: Exception) -> None:
    """Show at the end of an executed notebook an error that came from none of its cells."""
    import nbformat

    node, text = read(notebook), str(error)
    output = nbformat.v4.new_output("error", ename=type(error).__name__, evalue=text, traceback=[text])
    node.cells.append(nbformat.v4.new_code_cell(outputs=[output]))
    files.write_text(notebook, nbformat.writes(node) + "\n")


def mark(page: Path, banner: Banner, links: Links) -> None:
    """Put a banner on top of a page as it is, instead of one put there before; a page that is not there is made, of links."""
    mark = f"<!-- mark -->{banner._repr_html_()}<!-- /mark -->"
    if page.exists():
        body = page.read_text(encoding="utf-8")
        old = f"({_MAIN})(<!-- mark -->.*?<!-- /mark -->)?"
        body = re.sub(old, lambda match: match[1] + mark, body, count=1, flags=re.DOTALL)
    else:
        style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
        head = f'<meta charset="utf-8"><title>{page.parent.name}</title><link rel="icon" href="data:,"><style>{style}</style>'
        main = f'<main id="main">{mark}<h1>{page.parent.name}</h1>{links._repr_html_()}</main>'
        body = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{main}</body></html>'
    files.write_text(page, body)


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
