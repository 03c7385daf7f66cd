"""04: the store on disk, image by image; damaged images; a disk that is full."""

from __future__ import annotations

import csv
import hashlib
import os
import resource
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures import RESIZES, damage, draw, torchvision_tensor
from PIL import Image
from runs import CLASSES, opened
from timm.data import ImageNetInfo

from deit_helpers.data import batches, sources, transforms
from deit_helpers.errors import ArtifactError
from deit_helpers.report import preprocess as page
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import preprocess


def recorded_sha256(run: Run) -> str:
    return records.read_record(run, "preprocess")["outputs"]["dataset/images.npy"]["sha256"]


def index_rows(run: Run) -> list[list[str]]:
    with run.file("index").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("recipe", RESIZES)
def test_the_store_holds_every_image_in_order(class_folders: Path, recipe: str) -> None:
    run = opened(class_folders.parent, preprocess=recipe)
    facts = preprocess.preprocess(run)
    stored = np.load(run.file("images"))
    names = sorted(path.relative_to(class_folders).as_posix() for path in class_folders.rglob("*.jpg"))
    targets = [CLASSES.index(name.split("/")[0]) for name in names]
    tensors = transforms.tensors(stored, run.spec.recipe)

    assert (stored.dtype, stored.shape) == (np.uint8, (13, 224, 224, 3))
    assert index_rows(run) == [["name", "label"], *([name, str(label)] for name, label in zip(names, targets, strict=True))]
    assert (sources.read_index(run)[0], sources.read_index(run)[1].tolist()) == (names, targets)
    assert (facts["images"], facts["skipped"], facts["recipe"]["name"]) == (13, [], recipe)
    assert recorded_sha256(run) == hashlib.sha256(run.file("images").read_bytes()).hexdigest()
    assert facts["fingerprint"] == hashlib.sha256(tensors[:8].tobytes()).hexdigest()
    for name, tensor in zip(names, tensors, strict=True):
        with Image.open(class_folders / name) as image:
            np.testing.assert_array_equal(tensor, torchvision_tensor(image, recipe))


def test_the_store_is_the_same_bytes_every_time(class_folders: Path) -> None:
    contents = []
    for name in ("one", "two"):
        run = opened(class_folders.parent, run=name)
        preprocess.preprocess(run)
        contents.append([run.file(file).read_bytes() for file in ("images", "index", "preprocess")])
    assert contents[0] == contents[1]


def test_the_store_is_not_made_twice(class_folders: Path) -> None:
    run = opened(class_folders.parent)
    preprocess.preprocess(run)
    before = run.file("images").stat().st_mtime_ns
    assert preprocess.preprocess(run)["images"] == 13
    assert run.file("images").stat().st_mtime_ns == before


def test_bins_are_the_tensors_of_the_store(class_folders: Path) -> None:
    run = opened(class_folders.parent, bins=True)
    preprocess.preprocess(run)
    tensors = transforms.tensors(np.load(run.file("images")), run.spec.recipe)
    for name, tensor in zip(sources.read_index(run)[0], tensors, strict=True):
        path = run.folder / "dataset" / "bins" / name.replace("/", "__").replace(".jpg", ".bin")
        assert path.read_bytes() == tensor.tobytes()
    assert len((run.folder / "dataset" / "deit_prep_bin.info").read_text().splitlines()) == 13


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_takes_the_same_images_everywhere(class_folders: Path, stream: bool) -> None:
    run = opened(class_folders.parent, limit=3, stream=stream)
    facts, (names, labels) = preprocess.preprocess(run), sources.read_index(run)
    assert (facts["images"], facts["fingerprint_images"], facts["listed"], facts["label_classes"]) == (3, 3, 13, [0, 1, 2])
    assert names == sources.list_images(run) == batches.sample_crops(run, 3)[0]
    assert labels.tolist() == [0, 1, 2]
    crops = batches.crops_at(run, [0, 1, 2])
    np.testing.assert_array_equal(crops, batches.sample_crops(run, 3)[1])
    tensors = next(iter(batches.batches(run, 4))).tensor[:3]
    np.testing.assert_array_equal(tensors, transforms.tensors(crops, run.spec.recipe))
    assert page.recipe(run).values["images taken"] == "3 of 13, spread over the labels, seed 0"


def test_a_known_data_set_is_named_with_its_rows(project: Path) -> None:
    for index in (0, 217, 482, 491, 497, 566, 569, 571, 574, 701):
        draw(project / "pictures" / ImageNetInfo().label_names()[index] / "1.jpg")
    run = opened(project)
    assert preprocess.preprocess(run)["dataset"] == "imagenette"
    shown = page.recipe(run).values
    assert (shown["they look like"], shown["rows of params/expected.yaml for them"]) == ("imagenette", "none")
    shown = page.recipe(run.replace(expected="deit_small")).values
    assert "is of imagenet-1k, the images look like imagenette" in str(shown["rows of params/expected.yaml for them"])
    assert shown["images taken"] == "all 10"


def test_a_damaged_image_stops_the_run_and_leaves_no_store(class_folders: Path) -> None:
    damage(class_folders / "berry" / "04.jpg", "truncated")
    run = opened(class_folders.parent)
    with pytest.raises(ArtifactError, match=r"pictures/berry/04\.jpg: cannot be decoded"):
        preprocess.preprocess(run)
    assert os.listdir(run.folder / "dataset") == []


@pytest.mark.parametrize("count", [1, 4])  # 13 - 4 images: a header with one digit less
def test_skipped_images_are_counted_and_left_out_everywhere(class_folders: Path, count: int) -> None:
    names = [f"{CLASSES[i % 3]}/{i:02d}.jpg" for i in (4, 0, 12, 5)[:count]]
    for i, name in enumerate(names):
        damage(class_folders / name, ("truncated", "zero bytes")[i % 2])
    run = opened(class_folders.parent, on_bad_image="skip")
    facts = preprocess.preprocess(run)
    stored, (kept, _) = np.load(run.file("images")), sources.read_index(run)

    assert (facts["images"], len(stored), len(kept)) == (13 - count,) * 3
    assert [row["name"] for row in facts["skipped"]] == sorted(names)
    assert all(row["name"] in row["reason"] for row in facts["skipped"])
    assert recorded_sha256(run) == hashlib.sha256(run.file("images").read_bytes()).hexdigest()
    assert not set(kept) & set(names)
    for name, pixels in zip(kept, stored, strict=True):
        np.testing.assert_array_equal(pixels, transforms.crop(transforms.decode(class_folders / name), run.spec.recipe))


def test_skipping_every_image_is_an_error(project: Path) -> None:
    damage(project / "pictures" / "apple" / "1.jpg", "text")
    run = opened(project, on_bad_image="skip")
    with pytest.raises(ArtifactError, match="pictures: none of its 1 images can be decoded"):
        preprocess.preprocess(run)
    with pytest.raises(ArtifactError, match="pictures: none of its 1 images can be decoded"):
        batches.sample_crops(run, 2)


def test_pillows_remarks_on_palettes_do_not_leak_into_the_process(project: Path) -> None:
    first = draw(project / "pictures" / "a" / "000.png")
    with Image.open(first) as image:
        image.quantize(32).save(first, transparency=bytes(range(32)))
    for i in range(1, 60):
        shutil.copy(first, first.with_name(f"{i:03d}.png"))
    before = list(warnings.filters)
    assert preprocess.preprocess(opened(project))["images"] == 60
    assert warnings.filters == before


def test_a_full_disk_discards_the_partial_store_in_one_line(project: Path) -> None:
    """A limit on the size of files stands in for the disk: a real write fails half-way."""
    for i in range(12):
        draw(project / "pictures" / "a" / f"{i}.png", (224, 224), seed=i)
    run = opened(project)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ArtifactError, match=r"images\.npy: cannot be written \(File too large\)"):
            preprocess.preprocess(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(run.file("images").parent.glob("*")) == []
