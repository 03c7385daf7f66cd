"""Preprocessing against torchvision and timm bit for bit, the store on disk, padded batches, damaged files."""

from __future__ import annotations

import csv
import hashlib
import os
import resource
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import draw
from PIL import Image
from runs import write_spec
from timm.data import create_transform
from torchvision import transforms as tv

from deit_helpers import open_run
from deit_helpers.data import batches, sources, transforms
from deit_helpers.errors import ArtifactError
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.run.recipes import RECIPES
from deit_helpers.stages import preprocess

SIZES = [
    (1, 1), (3, 2), (1, 40), (57, 100), (223, 225), (224, 224), (225, 224), (248, 333), (256, 256), (257, 301), (301, 257),
    (333, 500), (500, 333), (500, 375), (640, 97), (1023, 767),
]  # fmt: skip
BICUBIC, BILINEAR = tv.InterpolationMode.BICUBIC, tv.InterpolationMode.BILINEAR
ORACLES = {"deit": (256, BICUBIC), "timm": (248, BICUBIC), "modelzoo": (256, BILINEAR)}


def torchvision_tensor(image: Image.Image, name: str) -> np.ndarray:
    side, interpolation = ORACLES[name]
    steps = [
        tv.Resize(side, interpolation),
        tv.CenterCrop(224),
        tv.ToTensor(),
        tv.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    return tv.Compose(steps)(image).numpy()


def ours(image: Image.Image, name: str) -> np.ndarray:
    return transforms.tensors(transforms.crop(image, RECIPES[name])[None], RECIPES[name])[0]


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_every_recipe_is_torchvisions_bit_for_bit(project: Path, size: tuple[int, int]) -> None:
    image = transforms.decode(draw(project / "x.png", size, seed=sum(size)))
    for name in ORACLES:
        np.testing.assert_array_equal(ours(image, name), torchvision_tensor(image, name), strict=True)


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_the_timm_recipe_is_timms_evaluation_bit_for_bit(project: Path, size: tuple[int, int]) -> None:
    image = transforms.decode(draw(project / "x.png", size, seed=sum(size)))
    oracle = create_transform((3, 224, 224), is_training=False, crop_pct=0.9, interpolation="bicubic")
    np.testing.assert_array_equal(ours(image, "timm"), oracle(image).numpy(), strict=True)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "bmp"), ("RGB", "webp"), ("L", "png"), ("1", "png"), ("P", "png"),
     ("LA", "png"), ("RGBA", "png"), ("RGBA", "webp")],
)  # fmt: skip
def test_every_mode_is_decoded_as_pillow_converts_it(project: Path, mode: str, suffix: str) -> None:
    path = project / f"x.{suffix}"
    draw(path, mode=mode)
    with Image.open(path) as stored:
        assert stored.mode == mode if suffix != "webp" else stored.mode in ("RGB", "RGBA")
        np.testing.assert_array_equal(np.asarray(transforms.decode(path)), np.asarray(stored.convert("RGB")))


def test_alpha_and_palette_give_the_plain_colour(project: Path) -> None:
    Image.new("RGBA", (4, 3), (10, 20, 30, 40)).save(project / "alpha.png")
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([1, 2, 3, 10, 20, 30])
    palette.save(project / "palette.png")
    for path in project.iterdir():
        assert np.asarray(transforms.decode(path)).tolist() == [[[10, 20, 30]] * 4] * 3


def test_exif_rotation_is_not_applied(project: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(project / "x.jpg", exif=exif)
    assert transforms.decode(project / "x.jpg").size == (40, 20)


def damaged(path: Path, kind: str) -> Path:
    """Replace or make `path` by a file that is no image in the way `kind` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = draw(path.with_name("whole" + path.suffix), (300, 200))
    content = {"zero bytes": b"", "truncated": whole.read_bytes()[:-2000], "text": b"<html>404</html>"}[kind]
    whole.unlink()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["zero bytes", "truncated", "text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_image_is_named_with_what_to_do(project: Path, kind: str, suffix: str) -> None:
    path = damaged(project / f"bad{suffix}", kind)
    with pytest.raises(ArtifactError, match=r"cannot be decoded .*replace the file, or set `on_bad_image: skip`") as caught:
        transforms.decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def opened(class_folders: Path, **keys: Any) -> Run:
    return open_run(write_spec(class_folders.parent, **keys), 4)


def recorded_sha256(run: Run) -> str:
    return records.read_record(run, "preprocess")["outputs"]["dataset/images.npy"]["sha256"]


def index_rows(run: Run) -> list[list[str]]:
    with run.file("index").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(("shape", "dtype"), [((20, 30), np.uint16), ((2, 3000), np.uint8)])
def test_what_cannot_become_a_sound_crop_is_refused(project: Path, shape: tuple[int, int], dtype: type) -> None:
    path = project / "x.png"
    Image.fromarray(np.zeros(shape, dtype)).save(path)
    with pytest.raises(ArtifactError, match=r"x\.png: cannot be decoded .*(clipped to white|too narrow)"):
        transforms.decode(path)


@pytest.mark.parametrize("recipe", ORACLES)
def test_the_store_holds_every_image_in_order(class_folders: Path, recipe: str) -> None:
    run = opened(class_folders, preprocess=recipe)
    facts = preprocess.preprocess(run)
    stored = np.load(run.file("images"))
    names = sorted(path.relative_to(class_folders).as_posix() for path in class_folders.rglob("*.jpg"))
    targets = [("apple", "berry", "cedar").index(name.split("/")[0]) for name in names]
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
        run = opened(class_folders, run=name)
        preprocess.preprocess(run)
        contents.append([run.file(file).read_bytes() for file in ("images", "index", "preprocess")])
    assert contents[0] == contents[1]


def test_the_store_is_not_made_twice(class_folders: Path) -> None:
    run = opened(class_folders)
    preprocess.preprocess(run)
    before = run.file("images").stat().st_mtime_ns
    assert preprocess.preprocess(run)["images"] == 13
    assert run.file("images").stat().st_mtime_ns == before


def test_bins_are_the_tensors_of_the_store(class_folders: Path) -> None:
    run = opened(class_folders, bins=True)
    preprocess.preprocess(run)
    tensors = transforms.tensors(np.load(run.file("images")), run.spec.recipe)
    for name, tensor in zip(sources.read_index(run)[0], tensors, strict=True):
        path = run.folder / "dataset" / "bins" / name.replace("/", "__").replace(".jpg", ".bin")
        assert path.read_bytes() == tensor.tobytes()
    assert len((run.folder / "dataset" / "deit_prep_bin.info").read_text().splitlines()) == 13


def test_a_limit_stores_only_the_first_images(class_folders: Path) -> None:
    run = opened(class_folders, limit=3)
    assert (preprocess.preprocess(run)["images"], preprocess.preprocess(run)["fingerprint_images"]) == (3, 3)
    assert len(np.load(run.file("images"))) == 3


def test_a_damaged_image_stops_the_run_and_leaves_no_store(class_folders: Path) -> None:
    damaged(class_folders / "berry" / "04.jpg", "truncated")
    run = opened(class_folders)
    with pytest.raises(ArtifactError, match=r"pictures/berry/04\.jpg: cannot be decoded"):
        preprocess.preprocess(run)
    assert os.listdir(run.folder / "dataset") == []


@pytest.mark.parametrize("count", [1, 4])  # 13 - 4 images: a header with one digit less
def test_skipped_images_are_counted_and_left_out_everywhere(class_folders: Path, count: int) -> None:
    names = [f"{('apple', 'berry', 'cedar')[i % 3]}/{i:02d}.jpg" for i in (4, 0, 12, 5)[:count]]
    for i, name in enumerate(names):
        damaged(class_folders / name, ("truncated", "zero bytes")[i % 2])
    run = opened(class_folders, on_bad_image="skip")
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
    damaged(project / "pictures" / "apple" / "1.jpg", "text")
    run = opened(project / "pictures", on_bad_image="skip")
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
    assert preprocess.preprocess(opened(project / "pictures"))["images"] == 60
    assert warnings.filters == before


@pytest.mark.parametrize("batch_size", [1, 4, 8, 13, 32])
def test_padded_rows_are_masked_and_repeat_the_last_image(class_folders: Path, batch_size: int) -> None:
    run = opened(class_folders)
    preprocess.preprocess(run)
    found = list(batches.batches(run, batch_size))
    plain = transforms.tensors(np.load(run.file("images")), RECIPES["deit"])

    assert all(batch.tensor.shape == (batch_size, 3, 224, 224) for batch in found)
    assert [batch.start for batch in found] == list(range(0, 13, batch_size))
    assert [int(batch.valid.sum()) for batch in found] == [min(batch_size, 13 - batch.start) for batch in found]
    np.testing.assert_array_equal(np.concatenate([batch.tensor[batch.valid] for batch in found]), plain, strict=True)
    for row in found[-1].tensor[~found[-1].valid]:
        np.testing.assert_array_equal(row, plain[-1])


def test_a_sample_is_spread_over_the_data_set_and_repeats_a_small_one(class_folders: Path) -> None:
    run = opened(class_folders)
    everything = [item.name for item in batches.list_images(run)]
    names, crops = batches.sample_crops(run, 3)
    assert names == [everything[0], everything[4], everything[8]]
    with Image.open(class_folders / names[1]) as image:
        np.testing.assert_array_equal(transforms.tensors(crops[1:2], RECIPES["deit"])[0], torchvision_tensor(image, "deit"))
    assert sorted(batches.sample_crops(run, 26)[0]) == sorted(everything * 2)


def test_a_sample_passes_over_damaged_images_only_where_they_are_skipped(class_folders: Path) -> None:
    damaged(class_folders / "apple" / "00.jpg", "truncated")
    assert batches.sample_crops(opened(class_folders, on_bad_image="skip"), 2)[0] == ["apple/03.jpg", "berry/04.jpg"]
    with pytest.raises(ArtifactError, match=r"apple/00\.jpg: cannot be decoded"):
        batches.sample_crops(opened(class_folders), 2)


def test_a_full_disk_discards_the_partial_store_in_one_line(project: Path) -> None:
    """A limit on the size of files stands in for the disk: a real write fails half-way."""
    for i in range(12):
        draw(project / "pictures" / "a" / f"{i}.png", (224, 224), seed=i)
    run = opened(project / "pictures")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ArtifactError, match=r"images\.npy: cannot be written \(File too large\)"):
            preprocess.preprocess(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(run.file("images").parent.glob("*")) == []
