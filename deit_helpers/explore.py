"""What a notebook asks of an opened run: its files, predictions, operators, latencies and images, as tables to work with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .audit import compare
from .data import batches, sources
from .errors import ArtifactError
from .metrics.classification import among, softmax
from .report import elements, index
from .report.compare import Page, page
from .report.flips import MOST, flips
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
            (softmax of the answer), reference (its answer) and agrees.

        Raises:
            ArtifactError: 05 was not run at this batch size, or its files are not current; the notebook to run.
        """
        import pandas as pd

        records.require(self, "logits", "index", "reference")
        valid, (names, labels) = valid_classes(self), sources.read_index(self)
        logits, reference = (among(np.load(self.file(name)), valid) for name in ("logits", "reference"))
        ranking = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
        best = np.take_along_axis(logits, ranking, axis=1)
        words = sources.class_words(self)
        table = pd.DataFrame({"image": names, "label": labels, "label_name": [words[c] for c in labels.tolist()]})
        table["answer"], table["answer_name"] = ranking[:, 0], [words[c] for c in ranking[:, 0].tolist()]
        table["correct"] = ranking[:, 0] == labels
        table["top5"] = ranking.tolist()
        table["margin"] = best[:, 0] - best[:, 1] if best.shape[1] > 1 else np.nan
        table["probability"] = softmax(logits).max(axis=1)
        table["reference"] = reference.argmax(axis=1)
        table["agrees"] = table["reference"] == table["answer"]
        return table

    def flips(self, count: int = MOST) -> elements.Gallery | elements.Table | elements.Banner:
        """The images whose answer differs from the fp32 reference's, the worst first: what `report.flips` shows on a page."""
        return flips(self, count)

    def compare(self, base: str | Path | Run) -> Page:
        """This run against another, an opened one or its folder, as `deit-report compare` judges it; no file is written."""
        other = base if isinstance(base, Run) else compare.opened(base)
        return page(compare.compare(other, self), self)

    def operators(self) -> pd.DataFrame:
        """The profile of this batch size: family, op_type, name, calls, total_us, share_percent, backend; most time first.

        Raises:
            ArtifactError: 07 was not run at this batch size; the notebook to run.
        """
        return self._table("profile")

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
