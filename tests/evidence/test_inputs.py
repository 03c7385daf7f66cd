"""Images prepared with one thing changed: the same tensors as the recipe's own, and only that thing different."""

from __future__ import annotations

import numpy as np
import pytest

from deit_helpers.data import batches
from deit_helpers.evidence.inputs import Input, tensor_batches
from deit_helpers.run.folder import Run


def tensors(run: Run, given: Input, indices: list[int] | None = None) -> np.ndarray:
    return np.concatenate([batch.tensor[batch.valid] for batch in tensor_batches(run, given, 4, indices)])


def test_without_a_change_the_tensors_are_those_that_the_device_gets(finished: Run) -> None:
    own = np.concatenate([batch.tensor[batch.valid] for batch in batches.batches(finished, 4)])
    assert np.array_equal(tensors(finished, Input(finished.spec.recipe)), own)


def test_other_geometry_is_decoded_from_the_files(finished: Run) -> None:
    given = Input(finished.spec.recipe)
    bilinear = tensors(finished, given.changed("bilinear"))
    assert bilinear.shape == (13, 3, 224, 224)
    assert not np.array_equal(bilinear, tensors(finished, given))
    assert np.array_equal(tensors(finished, given.changed("bilinear").changed("bicubic")), tensors(finished, given))


@pytest.mark.parametrize("indices", [[0], [12, 3, 5, 0, 1]])
def test_single_images_are_picked_in_order(finished: Run, indices: list[int]) -> None:
    given = Input(finished.spec.recipe)
    assert np.array_equal(tensors(finished, given, indices), tensors(finished, given)[indices])


def test_swapped_channels_are_swapped_before_the_mean_is_subtracted(finished: Run) -> None:
    given = Input(finished.spec.recipe)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (given.recipe.mean, given.recipe.std))
    pixels, swapped = (tensors(finished, how) * std + mean for how in (given, given.changed("bgr")))
    assert pixels[:, ::-1] == pytest.approx(swapped, abs=1e-5)
