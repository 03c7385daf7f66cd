"""Batches of the store, padded and masked, and samples spread over the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import damage, torchvision_tensor
from PIL import Image
from runs import opened

from deit_helpers.data import batches, transforms
from deit_helpers.errors import ArtifactError
from deit_helpers.run.recipes import RECIPES
from deit_helpers.stages import preprocess


@pytest.mark.parametrize("batch_size", [1, 4, 8, 13, 32])
def test_padded_rows_are_masked_and_repeat_the_last_image(class_folders: Path, batch_size: int) -> None:
    run = opened(class_folders.parent)
    preprocess.preprocess(run)
    padded = list(batches.batches(run, batch_size))
    plain = transforms.tensors(np.load(run.file("images")), RECIPES["deit"])

    assert all(batch.tensor.shape == (batch_size, 3, 224, 224) for batch in padded)
    assert [batch.start for batch in padded] == list(range(0, 13, batch_size))
    assert [int(batch.valid.sum()) for batch in padded] == [min(batch_size, 13 - batch.start) for batch in padded]
    np.testing.assert_array_equal(np.concatenate([batch.tensor[batch.valid] for batch in padded]), plain, strict=True)
    for row in padded[-1].tensor[~padded[-1].valid]:
        np.testing.assert_array_equal(row, plain[-1])


def test_a_sample_is_spread_over_the_data_set_and_repeats_a_small_one(class_folders: Path) -> None:
    run = opened(class_folders.parent)
    everything = batches.list_images(run)
    names, crops = batches.sample_crops(run, 3)
    assert names == [everything[0], everything[4], everything[8]]
    with Image.open(class_folders / names[1]) as image:
        np.testing.assert_array_equal(transforms.tensors(crops[1:2], RECIPES["deit"])[0], torchvision_tensor(image, "deit"))
    assert sorted(batches.sample_crops(run, 26)[0]) == sorted(everything * 2)


def test_a_sample_passes_over_damaged_images_only_where_they_are_skipped(class_folders: Path) -> None:
    damage(class_folders / "apple" / "00.jpg", "truncated")
    assert batches.sample_crops(opened(class_folders.parent, on_bad_image="skip"), 2)[0] == ["apple/03.jpg", "berry/04.jpg"]
    with pytest.raises(ArtifactError, match=r"apple/00\.jpg: cannot be decoded"):
        batches.sample_crops(opened(class_folders.parent), 2)
