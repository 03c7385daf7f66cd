"""What 04 shows: the recipe, crops, what was skipped or not used."""

from __future__ import annotations

from ..data import batches, sources
from ..errors import one_line
from ..run.expected import for_dataset
from ..run.folder import Run
from .elements import Facts, Gallery, Table
from .words import notes as notes

MOST_SKIPPED = 20


def recipe(run: Run) -> Facts:
    """How images become tensors, and the hash of the first of them."""
    prep = run.read("preprocess")
    values, listed, limit = prep["recipe"], prep["listed"], run.spec.limit
    rows, warning = for_dataset(run)
    is_drawn = limit is not None and limit < listed
    drawn = f"{limit} of {listed}, spread over the labels, seed {run.spec.limit_seed}"
    return Facts(
        f"Preprocessing of {prep['images']} images, recipe {values['name']}",
        {
            "resize short side": f"{values['resize_px']} px, {values['interpolation']}",
            "centre crop": f"{values['crop_px']} px",
            "mean": ", ".join(map(str, values["mean"])),
            "std": ", ".join(map(str, values["std"])),
            "images taken": drawn if is_drawn else f"all {listed}",
            "they look like": prep["dataset"] or "none of the data sets that are known by their layout",
            "rows of params/expected.yaml for them": warning or ", ".join(rows) or "none",
            "images skipped": len(prep["skipped"]),
            "files and folders not used": sum(row["count"] for row in prep["left_out"]),
            f"sha256 of the first {prep['fingerprint_images']} tensors": prep["fingerprint"],
        },
    )


def crops(run: Run, count: int = 6) -> Gallery:
    """Crops spread evenly over the data set, with name and label."""
    names, labels = sources.read_index(run)
    chosen = sorted({i * len(names) // count for i in range(count)})
    words = sources.class_words(run)
    texts = [f"{one_line(names[i].rpartition('/')[2])}: {words[int(labels[i])]}" for i in chosen]
    caption = f"{len(chosen)} of {len(names)} crops as the model sees them, file: class"
    return Gallery(batches.crops_at(run, chosen), texts, caption)


def skipped(run: Run) -> Table:
    """Images that could not be decoded, the first of them."""
    bad = run.read("preprocess")["skipped"]
    rows = [[row["name"], row["reason"]] for row in bad[:MOST_SKIPPED]]
    more = f"; the first {MOST_SKIPPED}, all are in {run.relative(run.file('preprocess'))}" if len(bad) > MOST_SKIPPED else ""
    return Table(f"{len(bad)} images skipped, not counted anywhere{more}", "image | why", rows)


def left_out(run: Run) -> Table:
    """Files and folders beside the images, by kind, with the names of the first."""
    kinds = run.read("preprocess")["left_out"]
    rows = [[row["kind"], row["count"], ", ".join(map(one_line, row["names"]))] for row in kinds]
    total = sum(row["count"] for row in kinds)
    return Table(f"{total} files and folders not used", "kind | number | the first of them", rows)
