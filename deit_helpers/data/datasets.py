"""Which well-known data set an image folder looks like: by its folders and the number of its images; none is opened."""

from __future__ import annotations

from .classes import SYNSET, synset_names
from .labels import OF_VALIDATION

# Images and class folders -> as `dataset` in `params/expected.yaml` has it. Sizes: the data sets' papers and archives.
_BY_SIZE = {
    (50_000, 1000): "imagenet-1k",  # the validation images
    (10_000, 1000): "imagenet-v2",
    (50_889, 1000): "imagenet-sketch",
    (7_500, 200): "imagenet-a",
    (30_000, 200): "imagenet-r",
}
_IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # tench, springer … parachute: the classes fast.ai chose


def recognised(names: list[str]) -> str | None:
    """The data set whose images these are, by their names below the image folder; None where it is none of the known ones.

    Folders are synsets, those of ImageNet-V2 numbers from 0. Imagenette, whose parts differ in size, is told by its synsets.
    """
    folders, synsets = {name.partition("/")[0] for name in names if "/" in name}, list(synset_names())
    if folders == {synsets[index] for index in _IMAGENETTE}:
        return "imagenette"
    dataset = _BY_SIZE.get((len(names), len(folders) or 1000))
    if dataset == "imagenet-v2":
        return dataset if folders == {str(index) for index in range(1000)} else None
    return dataset if all(map(SYNSET.fullmatch, folders) if folders else map(OF_VALIDATION.fullmatch, names)) else None
