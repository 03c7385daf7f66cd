"""Decoding, resizing and cropping against torchvision and timm bit for bit; what is no picture is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import RESIZES, damage, draw, torchvision_tensor
from PIL import Image
from timm.data import create_transform

from deit_helpers.data import transforms
from deit_helpers.errors import ArtifactError
from deit_helpers.run.recipes import RECIPES

SIZES = [
    (1, 1), (3, 2), (1, 40), (57, 100), (223, 225), (224, 224), (225, 224), (248, 333), (256, 256), (257, 301), (301, 257),
    (333, 500), (500, 333), (500, 375), (640, 97), (1023, 767),
]  # fmt: skip


def ours(image: Image.Image, name: str) -> np.ndarray:
    return transforms.tensors(transforms.crop(image, RECIPES[name])[None], RECIPES[name])[0]


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_every_recipe_is_torchvisions_bit_for_bit(project: Path, size: tuple[int, int]) -> None:
    image = transforms.decode(draw(project / "x.png", size, seed=sum(size)))
    for name in RESIZES:
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


@pytest.mark.parametrize("kind", ["zero bytes", "truncated", "text"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_image_is_named_with_what_to_do(project: Path, kind: str, suffix: str) -> None:
    path = damage(project / f"bad{suffix}", kind)
    with pytest.raises(ArtifactError, match=r"cannot be decoded .*replace the file, or set `on_bad_image: skip`") as caught:
        transforms.decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field_type", [2, 5, 7, 11])
def test_a_tiff_with_a_field_of_the_wrong_type_is_named_too(project: Path, field_type: int) -> None:
    """Pillow raises a TypeError of its own where the offset of the pixels is no integer. Tag 273, type in the next 16 bits."""
    path = draw(project / "x.tif")
    content = path.read_bytes()
    field = content.rindex(struct.pack("<HH", 273, 4))
    path.write_bytes(content[: field + 2] + struct.pack("<H", field_type) + content[field + 4 :])
    with pytest.raises(ArtifactError, match=r"x\.tif: cannot be decoded"):
        transforms.decode(path)


@pytest.mark.parametrize(("shape", "dtype"), [((20, 30), np.uint16), ((2, 3000), np.uint8)])
def test_what_cannot_become_a_sound_crop_is_refused(project: Path, shape: tuple[int, int], dtype: type) -> None:
    path = project / "x.png"
    Image.fromarray(np.zeros(shape, dtype)).save(path)
    with pytest.raises(ArtifactError, match=r"x\.png: cannot be decoded .*(clipped to white|too narrow)"):
        transforms.decode(path)
