"""What sets a run apart and must be said on every page, from its spec and its files."""

from __future__ import annotations

from typing import NamedTuple

from ..ascend.cann import is_emulated
from ..files import read_json
from .expected import for_dataset
from .folder import Run


class Marks(NamedTuple):
    """What sets a run apart.

    Attributes:
        demo: its checkpoint is the embedded demo's.
        emulated: a program stands in for the device or its tools here, or did when a file was made.
        imported: another tool measured some of its figures.
        dataset: where the expected row is of another data set than the images look like, with both; else empty.
        preprocessing: where the recipe is not what the model's timm configuration asks for, with both values; else empty.
        quoted_accuracies: where an imported text says an Acc@1, and its percent: each figure once, the lowest first.
    """

    demo: bool
    emulated: bool
    imported: bool
    dataset: str
    preprocessing: str
    quoted_accuracies: list[tuple[str, float]]


def marks(run: Run) -> Marks:
    """The marks of a run, whichever batch size it is opened at. Missing files set no mark."""
    sizes = {*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])}
    contents = [read_json(run.at(size).file(name)) for size in sorted(sizes) for name in ("convert", "infer")]
    quoted = {top1: where for content in contents for where, top1, _ in content.get("quoted_accuracy", [])}
    return Marks(
        demo=run.spec.checkpoint == "demo",
        emulated=is_emulated(run.spec.backend)
        or any(content.get("emulated") or content.get("runtime", {}).get("emulated") for content in contents),
        imported=any(content.get("imported_from") for content in contents),
        dataset=for_dataset(run)[1],
        preprocessing=_preprocessing(run),
        quoted_accuracies=[(where, top1) for top1, where in sorted(quoted.items())],
    )


def _preprocessing(run: Run) -> str:
    differences = run.spec.recipe.differences(read_json(run.file("export")).get("timm_config", {}))
    advice = f"`preprocess: model` takes what timm says of {run.spec.model}"
    return f"recipe {run.spec.recipe.name} has {'; '.join(differences)}; {advice}" if differences else ""
