"""An executed notebook -> one HTML page beside it that makes no request."""

from __future__ import annotations

import functools
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ArtifactError, DeitError
from ..run.folder import Run, html_path
from . import language
from .elements import STYLE_TAG, Banner, Links

ERROR_MARK = "papermill-error-cell-tag"  # of the cells that papermill adds to a notebook that failed
_one_at_a_time = threading.Lock()  # an exporter keeps what it knows of a notebook in itself
_ALONE: dict[str, Any] = {"name": None, "steps": {}, "sizes": {}}  # of a page that knows of no other
_MAIN = '<main id="main"[^>]*>'
_NOTHING = re.compile(r'<div class="banner missing".*?</div>|</?div[^>]*>', re.DOTALL)


@dataclass
class Section:
    """A heading of the second level and the cells below it; what comes before the first one has no title."""

    title: str
    id: str
    cells: list[Any]

    @property
    def empty(self) -> bool:
        """Whether all that is below it says that there is nothing yet: then it is folded into a line."""
        outputs = [output for cell in self.cells if cell.cell_type == "code" for output in cell.outputs]
        texts = [output.get("data", {}).get("text/html", "something") for output in outputs]
        return bool(self.title and texts) and not any(_NOTHING.sub("", unstyled(text)).strip() for text in texts)


def html(notebook: Path, run: Run | None = None, show_code: bool = False) -> Path:
    """Render an executed notebook beside itself (the report becomes `index.html`).

    Args:
        run: the run that it is a page of, to link the other pages; at the page's batch size.
        show_code: the cells' code is unfolded.
    """
    cells = _cells(read(notebook))
    lines = (line for cell in cells for line in cell.source.splitlines())
    title = next((line for line in lines if line.startswith("# ")), "# Report")[2:].partition(":")[0]
    about: dict[str, Any] = {"title": title, **_ALONE}
    if run:
        about |= {"name": run.spec.run, **_links(run, notebook.stem)}
        about["title"] += f" (bs{run.batch_size})" if run.batch_size else ""
    if run and notebook.stem == "report":
        from .index import title as title_of_run  # other pages do without what it imports

        about["title"] = title_of_run(run)
    page, spoken = html_path(notebook), run.spec.lang if run else language.ENGLISH
    language.translated_cells(cells, spoken)
    body = _rendered(about, sections=_sections(cells), show_code=show_code)
    files.write_text(page, language.translated_page(body, spoken))
    return page


def _cells(node: Any) -> list[Any]:
    """The cells of a page: without papermill's marks and overridden defaults, and to the error where one stopped it."""
    tags = [cell.metadata.get("tags", []) for cell in node.cells]
    hidden = {ERROR_MARK, *(["parameters"] if ["injected-parameters"] in tags else [])}
    cells = [cell for cell, tag in zip(node.cells, tags, strict=True) if not hidden & set(tag)]
    errors = {
        i: output.ename for i, cell in enumerate(cells) for output in cell.get("outputs", []) if output.output_type == "error"
    }
    stopped_at = next((i for i, name in errors.items() if name != "VerdictError"), len(cells))
    return cells[: stopped_at + 1]


def _sections(cells: list[Any]) -> list[Section]:
    sections = [Section("", "", [])]
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading, _, cell.source = cell.source[3:].partition("\n")
            sections.append(Section(heading, re.sub(r"\W+", "-", heading.lower()), []))
        sections[-1].cells.append(cell)
    return sections


def _links(run: Run, notebook: str) -> dict[str, dict[str, str | None]]:
    """To the report and every step at this batch size, and this step at others; None for itself."""
    pages, start = run.published(), run.page(notebook).parent
    size = run.batch_size or run.spec.batch_sizes[0]

    def to(path: Path) -> str | None:
        return None if path == html_path(run.page(notebook)) else os.path.relpath(path, start)

    steps = {name: sizes.get(size) or sizes.get(None) for name, sizes in pages.items()}
    targets = {name.replace("_", " "): to(path) for name, path in steps.items() if path}
    return {
        "steps": {"Report": to(run.folder / "index.html"), **targets},
        "sizes": {f"batch size {n}": to(path) for n, path in pages.get(notebook, {}).items() if n},
    }


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


def unstyled(text: str) -> str:
    """An element's HTML without the style it brings to Jupyter, which a page has once."""
    return STYLE_TAG.sub("", text)


def mark(page: Path, banner: Banner, links: Links) -> None:
    """Put a banner on top of a page as it is, instead of one put there before; a page that is not there is made, of links."""
    from nbformat.v4 import new_code_cell, new_output

    if page.exists():
        body = page.read_text(encoding="utf-8")
    else:
        name = page.parent.name
        output = new_output("display_data", {"text/html": f"<h1>{name}</h1>{links._repr_html_()}"})
        section = Section("", "", [new_code_cell(outputs=[output])])
        body = _rendered({"title": name, **_ALONE}, sections=[section], show_code=False)
    new = f"<!-- mark -->{unstyled(banner._repr_html_())}<!-- /mark -->"
    old = f"({_MAIN})(<!-- mark -->.*?<!-- /mark -->)?"
    files.write_text(page, re.sub(old, lambda match: match[1] + new, body, count=1, flags=re.DOTALL))


def _rendered(about: dict[str, Any], **page: Any) -> str:
    from nbformat.v4 import new_notebook

    with _one_at_a_time:  # the cells are in the sections
        body, _ = _exporter().from_notebook_node(new_notebook(), {"page": {**about, **page}})
    return str(body)


@functools.cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_template_basedirs=[str(Path(__file__).parent)],
        template_name="templates",
        template_file="page.html.j2",
        exclude_anchor_links=True,
        filters={"unstyled": unstyled},
    )
    exporter.environment.autoescape = True
    exporter.environment.globals["ours"] = {kind.__name__ for kind in DeitError.__subclasses__()}
    return exporter
