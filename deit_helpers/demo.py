"""The embedded demo: scikit-learn's bundled digits as JPEG folders, a seeded backbone, a head fitted by ridge regression.

It needs no network and no trained weights. Its accuracy says nothing about DeiT on ImageNet: it exists so that every
step of the proof runs on real files, with a model whose predictions are neither random nor perfect.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import files
from .data import batches, sources, transforms
from .data.prefetch import mapped
from .data.sources import write_index
from .metrics import classification
from .model import checkpoint
from .run import records
from .run.folder import Run
from .run.recipes import PreprocessSpec
from .run.records import makes

CLASSES = 10
HELD_OUT = 300  # no multiple of 8 or 32, so that the last batch is always partial
TRAINING, FIRST_HELD_OUT = 200, 360  # of the shuffled digits
SEED = 20121228  # the DeiT paper is arXiv 2012.12877
BATCH_SIZE = 8  # images per forward pass when features are computed


def prepare(run: Run) -> None:
    """Make the demo's images and checkpoint where the spec asks for them: ordinary files to everything that follows.

    Nothing is made where a run was carried without its images: what 03 to 07 need of them is in the store.
    """
    if run.spec.images == "demo" and not _carried(run):
        if not run.image_folder.is_dir():
            records.forget(run, "demo_images")
        records.ensure(run, "demo_images", lambda: _write_images(run))
        if run.spec.checkpoint == "demo":
            _checkpoint(run)


def _carried(run: Run) -> bool:
    """Whether the run came here without its images and nothing that reads them has to be made."""
    readers = [("export", run), ("preprocess", run), *(("optimize", at) for at in run.at_each())]
    missing = not run.image_folder.is_dir() and not run.spec.stream
    return missing and all(records.problem(at, stage) is None for stage, at in readers)


@makes("demo")
def _checkpoint(run: Run) -> dict[str, Any]:
    """Make the demo's checkpoint, in the format of the official files; returns its PyTorch fp32 figures."""
    import torch
    from sklearn.linear_model import Ridge

    recipe = run.spec.recipe
    model = checkpoint.create(run, fused_attention=True, num_classes=CLASSES)
    seed_backbone(model)
    pictures, targets = training_images()
    listing = sources.list_folder(run)
    labels, held_out = sources.label_images(run, listing, CLASSES), sources.list_images(run, listing)
    crops = np.stack(
        [transforms.crop(picture, recipe) for picture in pictures]
        + [transforms.crop(transforms.decode(run.image_folder / name), recipe) for name in held_out]
    )
    trained, unseen = np.split(_features(model, crops, recipe), [len(pictures)])
    weight = Ridge().fit(trained.astype(np.float64), np.eye(CLASSES)[targets]).coef_
    bias = 1 / CLASSES - weight @ trained.mean(axis=0, dtype=np.float64)  # as if all classes were equally frequent
    with torch.inference_mode():
        head = model.get_classifier()
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
        logits = head(torch.from_numpy(unseen)).numpy()
    # An open file, not a path: torch writes a path's name into the archive, and two runs would differ by it.
    with files.atomic(run.file("demo_checkpoint")) as temporary, temporary.open("wb") as file:
        torch.save({"model": model.state_dict()}, file)
    ranks = classification.label_ranks(logits, np.array([labels[name] for name in held_out]))
    top1, top5 = (classification.percent_within(ranks, k) for k in (1, 5))
    return {"images": len(held_out), "top1_percent": top1, "top5_percent": top5, "training_images": len(pictures)}


def _features(model: Any, crops: np.ndarray, recipe: PreprocessSpec) -> np.ndarray:
    """What the head of the model sees of each crop (N, D). A thread per core, each with a batch of its own, waits less than
    all of them at one batch."""
    import torch

    def of_batch(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(transforms.tensors(pixels, recipe))
            return model.forward_head(model.forward_features(x), pre_logits=True).numpy()

    threads, features = torch.get_num_threads(), list[np.ndarray]()
    torch.set_num_threads(1)
    try:
        with batches.progress(len(crops)) as bar:
            starts = range(0, len(crops), BATCH_SIZE)
            for rows in mapped(of_batch, (crops[i : i + BATCH_SIZE] for i in starts), threads):
                features.append(rows)
                bar.update(len(rows))
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(features)


def seed_backbone(model: Any) -> None:
    """Give a timm vision transformer seeded weights whose random features tell digits apart.

    timm's initialisation (std 0.02) leaves the residual stream nearly constant; scaling attention by 3, MLP and patch
    embedding by 2 and drawing position embeddings with std 1 makes the class token depend on what is where.
    """
    import torch

    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("head"):
                continue
            scale = 3.0 if ".attn." in name else 2.0
            std = 1.0 if name == "pos_embed" else 0.02 * scale
            # Biases and norms too: left at 0 and 1 they would vanish from the graph, and trained ones do not.
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(mean + torch.randn(weight.shape, generator=generator) * std)


def write_images(folder: Path) -> None:
    """Write the held-out digits anew: `folder/<digit>/<number>.jpg`, 200 to 420 pixels a side, grey on black.

    The folder appears complete or not at all.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        digits, labels = _digits()
        for i in range(FIRST_HELD_OUT, FIRST_HELD_OUT + HELD_OUT):
            path = temporary / str(labels[i]) / f"{i:04d}.jpg"
            path.parent.mkdir(exist_ok=True)
            _picture(digits[i], i).save(path, quality=92)
        temporary.chmod(0o755)  # mkdtemp makes it private
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def training_images() -> tuple[list[Image.Image], np.ndarray]:
    """The digits the head is fitted on, none of them held out: RGB images and their labels (N,)."""
    digits, labels = _digits()
    return [_picture(digits[i], i).convert("RGB") for i in range(TRAINING)], labels[:TRAINING]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """8x8 digits as uint8 and labels, shuffled with a fixed seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.images))
    return (data.images[order] * (255 / 16)).astype(np.uint8), data.target[order]


def _picture(digit: np.ndarray, number: int) -> Image.Image:
    """One digit centred on a black picture whose size depends on its number; the margin survives the centre crop."""
    width, height = (int(side) for side in np.random.default_rng([SEED, number]).integers(200, 421, 2))
    side = int(min(width, height) * 0.7)
    picture = Image.new("L", (width, height))
    picture.paste(
        Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), ((width - side) // 2, (height - side) // 2)
    )
    return picture


def _write_images(run: Run) -> None:
    with files.atomic(run.file("demo_images")) as temporary:
        try:
            write_images(run.image_folder)
        except OSError as err:
            raise files.unwritable(run.image_folder, err) from err
        write_index(temporary, sources.label_images(run, sources.list_folder(run), CLASSES))
