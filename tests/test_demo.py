"""The embedded demo: the same pictures every time, none seen while fitting."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from runs import TINY

from deit_helpers import demo, open_run
from deit_helpers.demo import seed_backbone
from deit_helpers.run import records


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "images"
    demo.write_images(folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_pictures_are_jpegs_in_ten_folders_of_200_to_420_pixels(pictures: Path) -> None:
    assert sorted(path.name for path in pictures.iterdir()) == [str(digit) for digit in range(10)]
    assert len(contents(pictures)) == demo.HELD_OUT
    sizes = set()
    for path in pictures.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            sizes.add(image.size)
    assert min(map(min, sizes)) >= 200
    assert max(map(max, sizes)) <= 420
    assert len(sizes) > 100


def test_the_last_batch_is_always_partial() -> None:
    assert all(demo.HELD_OUT % batch_size for batch_size in (8, 16, 32))


def test_the_pictures_are_the_same_bytes_every_time(pictures: Path, tmp_path: Path) -> None:
    demo.write_images(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(pictures)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_folder_that_is_there_is_replaced_whole(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "7").mkdir(parents=True)
    (tmp_path / "images" / "7" / "mine.jpg").write_text("x")
    demo.write_images(tmp_path / "images")
    assert contents(tmp_path / "images") == contents(pictures)


def test_pictures_appear_all_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        demo.write_images(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


def test_no_held_out_picture_is_among_those_of_the_fit(pictures: Path) -> None:
    fitted, labels = demo.training_images()
    numbers = sorted(int(path.stem) for path in pictures.rglob("*.jpg"))
    assert (len(fitted), len(labels), {image.mode for image in fitted}) == (demo.TRAINING, demo.TRAINING, {"RGB"})
    assert numbers == list(range(demo.FIRST_HELD_OUT, demo.FIRST_HELD_OUT + demo.HELD_OUT))
    assert demo.FIRST_HELD_OUT >= demo.TRAINING
    assert set(labels) == set(range(demo.CLASSES))


def test_the_backbone_is_seeded_and_its_head_left_alone() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = timm.create_model(TINY["model"], num_classes=10, **TINY["model_args"])
        head = model.head.weight.detach().clone()
        seed_backbone(model)
        assert torch.equal(model.head.weight, head)
        states.append({name: weight for name, weight in model.state_dict().items() if not name.startswith("head")})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name, std in {"pos_embed": 1.0, "blocks.0.attn.qkv.weight": 0.06, "blocks.1.mlp.fc1.weight": 0.04}.items():
        assert float(states[0][name].std()) == pytest.approx(std, rel=0.05)


def test_a_run_that_came_without_its_images_makes_them_again_only_where_they_are_read(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_project / "reports" / "mini", tmp_path / "mini")
    shutil.rmtree(tmp_path / "mini" / "demo" / "images")
    run = open_run("mini/spec.yaml", 8)
    assert not run.image_folder.exists()
    records.forget(run, "optimize")
    assert open_run("mini/spec.yaml", 8).image_folder.is_dir()
