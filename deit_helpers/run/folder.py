"""Where every file of a run lives, how it is opened by a notebook, and how its files are written and hashed."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from typing_extensions import Self

from ..errors import ArtifactError, SpecError
from ..files import is_utf8, read_json, write_dir, write_text
from .lineage import FILES, NOTEBOOKS
from .spec import RunSpec, check_batch_size
from .validation import given_path

DEMO_IMAGES = "demo/images"  # below the run folder


@dataclass(frozen=True)
class Run:
    """An opened run: the validated spec, the folder of its files and the batch size (None for the cross-batch page)."""

    spec: RunSpec
    folder: Path
    root: Path
    batch_size: int | None = None

    @classmethod
    def resolve(cls, spec: str | Path, batch_size: int | None = None, overrides: dict[str, Any] | None = None) -> Self:
        """A run as `open_run` opens it, with keys that replace those of the file; nothing is written.

        Raises:
            SpecError: a wrong spec or batch size.
        """
        if batch_size is not None:
            check_batch_size(batch_size)
        root = project_root()
        given = given_path(spec)
        path = given if given.exists() or not (root / given).exists() else root / given
        run_spec = RunSpec.load(path, overrides)
        is_run_folder = path.name == "spec.yaml" and (path.parent / "meta").is_dir()
        folder = (path.parent if is_run_folder else root / "reports" / run_spec.run).resolve()
        if not is_utf8(str(folder)):
            raise SpecError(f"{folder}: pages are UTF-8, this folder's name is not: rename it, or run elsewhere")
        return cls(run_spec, folder, root, batch_size)

    def save_spec(self) -> None:
        """Write the resolved spec to the run folder's `spec.yaml`, unless it says the same already."""
        path, text = self.folder / "spec.yaml", self.spec.to_yaml()
        write_dir(self.folder / "meta")  # also tells a run folder from a folder that merely holds a spec.yaml
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    def file(self, name: str) -> Path:
        """Path of a file of this run, by its name in FILES."""
        template = FILES[name]
        return self.folder / template.format(
            n=self.size if "{n}" in template else None, d=self.spec.device, backend=self.spec.backend
        )

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of this run.

        Raises:
            ArtifactError: it does not exist or is damaged.
        """
        value = read_json(self.file(name))
        if not value:
            raise ArtifactError(f"{self.file(name)}: missing or damaged; make it again with `deit-report run`")
        return value

    def relative(self, path: Path) -> str:
        """A path as it is written in records and reports: relative to the run folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    @property
    def size(self) -> int:
        """The batch size, where there must be one."""
        return check_batch_size(self.batch_size)

    def at(self, batch_size: int) -> Self:
        """The run opened at a batch size."""
        return dataclasses.replace(self, batch_size=check_batch_size(batch_size))

    def replace(self, **keys: Any) -> Self:
        """The run with other values of some keys of its spec, which are not validated again."""
        return dataclasses.replace(self, spec=self.spec.model_copy(update=keys))

    @property
    def device_model(self) -> Path:
        """The file that the backend loads: ATC's OM, torch's checkpoint, or the static graph itself."""
        name = self.spec.backend_row.device_model
        return self.checkpoint if name == "checkpoint" else self.file(name)

    @property
    def checkpoint(self) -> Path:
        if self.spec.checkpoint == "demo":
            return self.file("demo_checkpoint")
        return self.root / self.spec.checkpoint

    def atc_files(self) -> dict[str, Path]:
        """Files that flags of ATC name, relative to the folder the command runs in."""
        given = {name: self.root / value for name, value in self.spec.atc.items() if isinstance(value, str) and value}
        return {name: path.resolve() for name, path in given.items() if os.path.isfile(path)}  # noqa: PTH113 - Path.is_file raises where a value is too long

    @property
    def image_folder(self) -> Path:
        if self.spec.images == "demo":
            return self.folder / DEMO_IMAGES
        return self.root / self.spec.images

    @property
    def classes(self) -> int | None:
        """How many classes the exported graph has; None before 01."""
        return read_json(self.file("export")).get("classes")

    def at_each(self, per_batch: bool = True) -> list[Self]:
        """The run at every batch size of its spec, or itself alone for what is made once."""
        return [self.at(size) for size in self.spec.batch_sizes] if per_batch else [self]

    def page(self, notebook: str) -> Path:
        """Where a notebook lies when it was executed with papermill; its HTML page lies beside it (`html_path`)."""
        row = NOTEBOOKS[notebook]
        return self.folder / row.folder.format(n=self.size if row.per_batch else None) / f"{notebook}.ipynb"

    def page_record(self, notebook: str) -> Path:
        """What a page was made from; or `stopped`, the error of the step that made it."""
        suffix = f"_bs{self.size}" if NOTEBOOKS[notebook].per_batch else ""
        return self.folder / "meta" / f"page_{notebook}{suffix}.json"

    def published(self) -> dict[str, dict[int | None, Path]]:
        """The pages that are there, but for the report's: by notebook and batch size, None where it has none."""
        pages: dict[str, dict[int | None, Path]] = {}
        for notebook in filter(self.asks_for, sorted(NOTEBOOKS.keys() - {"report"})):
            for at in self.at_each(NOTEBOOKS[notebook].per_batch):
                size, path = (at.batch_size if NOTEBOOKS[notebook].per_batch else None), html_path(at.page(notebook))
                if path.exists():
                    pages.setdefault(notebook, {})[size] = path
        return pages

    def link(self, path: Path) -> str:
        """A link for a notebook's output: from the notebook's folder in Jupyter, elsewhere from the run folder."""
        here = Path.cwd()
        start = here if here.name == "notebooks" or self.folder in here.parents else self.folder
        return quote(Path(os.path.relpath(path, start)).as_posix())

    def asks_for(self, notebook: str) -> bool:
        """Whether the spec has the key that asks for a notebook, where there is one."""
        key = NOTEBOOKS[notebook].asked_by
        return key is None or bool(getattr(self.spec, key))


def html_path(executed: Path) -> Path:
    """The page of an executed notebook; the report's is `index.html`."""
    return executed.with_name("index.html") if executed.stem == "report" else executed.with_suffix(".html")


def project_root() -> Path:
    """The working directory, or its parent when that is a project's `notebooks` folder (as in Jupyter)."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "params").is_dir() else here


def notebook_source(notebook: str) -> Path:
    """The notebook itself: in the working directory's project, or beside this package."""
    for root in (project_root(), Path(__file__).parents[2]):
        path = root / "notebooks" / f"{notebook}.ipynb"
        if path.exists():
            return path
    raise ArtifactError(f"notebooks/{notebook}.ipynb: not found; run from the project's folder")
