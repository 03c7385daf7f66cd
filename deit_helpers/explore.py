"""What a notebook asks of an opened run: its files, predictions, operators, latencies and images, as tables to work with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .compare import judge
from .compare.page import Page, page
from .data import batches, sources
from .errors import ArtifactError, SpecError
from .metrics.classification import among, softmax
from .metrics.operators import FAMILIES
from .report import cards, elements, index
from .run import manifest, records
from .run.expected import valid_classes
from .run.folder import Run
from .run.lineage import NOTEBOOK_OF
from .run.validation import nearest

if TYPE_CHECKING:
    import pandas as pd

TOP = 5


class OpenedRun(Run):
    """A run as `open_run` gives it to a notebook.

    Its tables are pandas DataFrames made from the files of the run: nothing is run and nothing is made by asking.
    """

    def __repr__(self) -> str:
        size = f", batch size {self.batch_size}" if self.batch_size else ""
        return f"<run {self.spec.run}{size}: {self.spec.model} on {self.spec.backend} {self.spec.precision}, {self.folder}>"

    def _repr_html_(self) -> str:
        return index.summary(self)._repr_html_()

    def files(self) -> pd.DataFrame:
        """Every file of the run that was made or can be, in the order of the notebooks.

        Returns:
            A row per file: file (path in the run folder), made_by (notebook), state (`current`, or why not), bytes.
        """
        import pandas as pd

        rows = []
        for stage, at in manifest.all_stages(self):
            state = records.problem(at, stage) or "current"
            for name in records.outputs(at, stage):
                path = at.file(name)
                lost = state == "current" and not path.exists()
                size = path.stat().st_size if path.exists() else None
                rows.append((at.relative(path), NOTEBOOK_OF[stage], "was not imported" if lost else state, size))
        return pd.DataFrame(rows, columns=["file", "made_by", "state", "bytes"]).astype({"bytes": "Int64"})

    def predictions(self) -> pd.DataFrame:
        """What the device model and the reference say of every image at this batch size, as 06 scores it.

        Returns:
            A row per image: image, label and answer (class indices), label_name, answer_name (words where there are some),
            correct, top5 (class indices, best first), margin (logit of the best class minus that of the second), probability
            (softmax of the answer), reference (its answer), agrees and reference_margin. `bsN/predictions.csv` has the same.

        Raises:
            ArtifactError: 05 was not run at this batch size, or its files are not current; the notebook to run.
        """
        records.require(self, "logits", "index", "reference")
        return cards.predictions(self)

    def changed(self, count: int = cards.MOST_CHANGED) -> elements.Gallery:
        """Cards of the images whose answer differs from the fp32 reference's, the worst first; `.df` has all of them.

        Opened without a batch size: those of the size that agrees least.

        Raises:
            ArtifactError: no answers yet; the notebook to run.
        """
        return _shown(cards.changed(self, count))

    flips = changed

    def wrong(self, count: int = cards.MOST_WRONG) -> elements.Gallery:
        """Cards of the images whose answer is not their label, those that only the reference has right first; as `changed`."""
        return _shown(cards.wrong(self, count))

    def compare(self, base: str | Path | Run) -> Page:
        """This run against another, an opened one or its folder, as `deit-report compare` judges it; no file is written."""
        other = base if isinstance(base, Run) else judge.opened(base)
        return page(judge.compare(other, self), self)

    def operators(self, family: str | None = None) -> pd.DataFrame:
        """The profile of this batch size: family, op_type, name, calls, total_us, share_percent, backend; most time first.

        Args:
            family: one of `metrics.operators.FAMILIES`, such as SoftmaxV2; all of them where it is left out.

        Raises:
            ArtifactError: 07 was not run at this batch size; the notebook to run.
            SpecError: no such family; the nearest right one.
        """
        if family not in (None, *FAMILIES):
            raise SpecError(f"family: no {family!r}{nearest(str(family), list(FAMILIES))}; there are {', '.join(FAMILIES)}")
        table = self._table("profile")
        return table if family is None else table[table["family"] == family]

    def latencies(self) -> pd.DataFrame:
        """The timings of every batch of 05 in ms, with its number of images; the columns are those of `latency.csv`.

        Raises:
            ArtifactError: 05 was not run at this batch size; the notebook to run.
        """
        return self._table("latency")

    def image(self, name: str) -> elements.Gallery:
        """An image as the model sees it, with its label and, once 05 was run, the five best answers and their probabilities.

        Args:
            name: as in `predictions()`, or its end: `00012.jpg` for `3/00012.jpg`.

        Raises:
            ArtifactError: no image of that name, or several; the nearest right one.
        """
        records.require(self, "index")
        names, labels = sources.read_index(self)
        matches = [i for i, known in enumerate(names) if known == name or known.endswith(f"/{name}")]
        if not matches:
            hint = nearest(name, [*names, *(known.rpartition("/")[2] for known in names)])
            raise ArtifactError(f"{name}: no image of that name{hint}; `run.predictions()` lists them")
        if len(matches) > 1:
            raise ArtifactError(f"{name}: {len(matches)} images of that name; `run.predictions()` lists them")
        i, words = matches[0], sources.class_words(self)
        caption = f"Label {words[int(labels[i])]}"
        if self.batch_size and self.file("logits").exists() and records.problem(self, "infer", strict=False) is None:
            probabilities = softmax(among(np.load(self.file("logits"), mmap_mode="r")[i][None], valid_classes(self)))[0]
            ranking = np.argsort(-probabilities, kind="stable")[:TOP]
            caption += "; answers: " + ", ".join(f"{words[int(c)]} {100 * probabilities[c]:.1f} %" for c in ranking)
        return elements.Gallery(batches.crops_at(self, [i]), [names[i]], caption)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        records.require(self, name)
        return pd.read_csv(self.file(name))


def _shown(gallery: elements.Gallery | elements.Banner) -> elements.Gallery:
    if isinstance(gallery, elements.Banner):
        raise ArtifactError(f"{gallery.title} {gallery.text}")
    return gallery
