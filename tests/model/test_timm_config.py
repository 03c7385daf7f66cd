"""`preprocess: model`: the recipe is what timm's own evaluation transform does, and lies in the run's spec.yaml."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from pictures import draw
from runs import TINY, draw_classes, make_checkpoint, new_run, opened, run_tool, write_spec
from timm.data import create_transform, resolve_model_data_config

from deit_helpers import open_run
from deit_helpers.data import transforms
from deit_helpers.errors import SpecError
from deit_helpers.model import timm_config
from deit_helpers.report import export as page
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, preprocess

LARGE = {"model": "vit_base_patch16_384", "model_args": {}}


@pytest.mark.parametrize("keys", [TINY, LARGE, {**TINY, "model_args": {"img_size": 96}}])
def test_the_recipe_is_timms_own_evaluation(project: Path, keys: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = timm.create_model(keys["model"], **keys["model_args"])
    config = resolve_model_data_config(model)
    if "img_size" in keys["model_args"]:
        config["input_size"] = (3, 96, 96)
    draw(project / "x.jpg", (500, 430), seed=1)
    picture = transforms.decode(project / "x.jpg")
    recipe = opened(project, checkpoint="x.pth", preprocess="model", **keys).spec.recipe
    ours = transforms.tensors(transforms.crop(picture, recipe)[None], recipe)[0]
    np.testing.assert_allclose(ours, create_transform(**config)(picture).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "vit_base_patch16_clip_384",
            r"timm prepares the images of .* with 384x384 px, crop mode squash, bicubic; we can do squ",
        ),
        ("vit_tinny", r"model: timm cannot create 'vit_tinny'"),
    ],
)
def test_what_no_recipe_here_does_is_said(project: Path, model: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        opened(project, model=model, model_args={}, preprocess="model")


def test_without_timm_the_spec_of_the_run_folder_is_enough(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = opened(project, preprocess="model").spec.recipe
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SpecError, match=r"asks timm, which is not installed: pip install .*, or run the spec\.yaml"):
        opened(project, preprocess="model")
    assert open_run(project / "reports" / "test" / "spec.yaml").spec.recipe == recipe
    assert yaml.safe_load((project / "reports" / "test" / "spec.yaml").read_text())["preprocess"]["mean"] == [0.5, 0.5, 0.5]


def test_the_recipes_values_decide_whether_files_are_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = timm_config.resolved(new_run(tmp_path).replace(preprocess="model"))
    first = preprocess.preprocess(run)
    assert (first["recipe"]["name"], first["recipe"]["std"]) == ("model", [0.5, 0.5, 0.5])
    other = run.replace(preprocess=run.spec.recipe.model_copy(update={"std": (0.25, 0.5, 0.5)}))
    assert preprocess.preprocess(other)["fingerprint"] != first["fingerprint"]


def test_a_run_with_another_recipe_than_the_models_is_warned_of(project: Path) -> None:
    draw_classes(project / "pictures")
    make_checkpoint(project / "tiny.pth")
    write_spec(project)
    result = run_tool("deit_helpers", "run", "params/test.yaml", "--to", "01", cwd=project)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert line.startswith(
        "warning: preprocessing: recipe deit has mean 0.485, 0.456, 0.406 (the model: 0.5, 0.5, 0.5); std 0.229"
    )
    pages = project / "reports" / "test"
    assert "recipe deit has mean 0.485, 0.456, 0.406 (the model: 0.5" in (pages / "export" / "01_export.html").read_text()
    for name in ("export/01_export.html", "index.html"):  # that of 01 too, where the notes come first
        assert "The preprocessing is not the model" in (pages / name).read_text()
    verified = run_tool("deit_helpers", "verify", "reports/test", cwd=project)
    assert verified.returncode == 0, verified.stdout
    result = run_tool("deit_helpers", "run", "params/test.yaml", "--to", "01", "-s", "preprocess=model", cwd=project)
    assert "warning: " not in result.stderr
    assert "The preprocessing is not" not in (pages / "index.html").read_text()


def test_the_page_says_what_was_done_to_the_weights(tmp_path: Path) -> None:
    run: Run = new_run(tmp_path)
    state = torch.load(run.checkpoint, weights_only=True)["model"]
    wrapped = {f"module.{name}": tensor.half() for name, tensor in state.items()}
    grid = torch.cat([state["pos_embed"], *[state["pos_embed"][:, 1:]] * 3], dim=1)[:, : 1 + 24 * 24]
    torch.save({"model": wrapped, "model_ema": {**wrapped, "module.pos_embed": grid}}, run.checkpoint)
    export.export(run.replace(ema=True))
    text = page.exported(run).values["weights"]
    assert text == (
        "entry model_ema (averaged, as `ema: true` asks); not taken: model; prefix module. taken off; "
        "pos_embed resampled from 24 × 24 patches to 14 × 14 patches; head of 3 classes; stored in float16, float32"
    )
