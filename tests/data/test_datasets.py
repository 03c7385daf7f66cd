"""Well-known data sets are told by their folders and the number of their images."""

from __future__ import annotations

import pytest
from timm.data import ImageNetInfo

from deit_helpers.data.datasets import recognised

SYNSETS = ImageNetInfo().label_names()
# fast.ai's README: tench, English springer, cassette player, chain saw, church, French horn, garbage truck, gas pump …
IMAGENETTE = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
              "n03445777", "n03888257"]  # fmt: skip
NUMBERS = [str(i) for i in range(1000)]
VAL = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 50_001)]


def laid_out(folders: list[str], images: int) -> list[str]:
    return [f"{folders[i % len(folders)]}/{i}.JPEG" for i in range(images)]


@pytest.mark.parametrize(
    ("names", "dataset"),
    [
        (laid_out(SYNSETS, 50_000), "imagenet-1k"),
        (VAL, "imagenet-1k"),
        (laid_out(NUMBERS, 10_000), "imagenet-v2"),
        (laid_out(SYNSETS, 50_889), "imagenet-sketch"),
        (laid_out(SYNSETS[:200], 7_500), "imagenet-a"),
        (laid_out(SYNSETS[::5], 30_000), "imagenet-r"),
        (laid_out(IMAGENETTE, 3_925), "imagenette"),
        (laid_out(IMAGENETTE, 9_469), "imagenette"),
    ],
)
def test_known_data_sets_are_recognised(names: list[str], dataset: str) -> None:
    assert recognised(names) == dataset


@pytest.mark.parametrize(
    "names",
    [
        [],
        VAL[:-1],
        [*VAL[:-1], "cat.JPEG"],
        laid_out(SYNSETS, 49_999),
        laid_out(SYNSETS, 10_000),
        laid_out([*NUMBERS[:-1], "1000"], 10_000),
        laid_out(NUMBERS, 50_000),
        laid_out([*SYNSETS[:199], "cats"], 7_500),
        laid_out(SYNSETS[:10], 3_925),
        laid_out(["cat", "dog"], 20),
    ],
)
def test_what_differs_in_number_or_layout_is_none_of_them(names: list[str]) -> None:
    assert recognised(names) is None
