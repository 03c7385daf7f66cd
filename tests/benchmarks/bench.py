"""`make bench`: how fast the pipeline is beside timm's evaluation loop and a plain ONNX Runtime loop, on this machine.

Not a test: nothing here passes or fails. All contenders answer the same JPEGs in one process, in turn (A B A B …), so that
a noisy machine treats them alike; rates are medians over the rounds and compared as ratios with their range. Weights are
random: they do not change the speed. Writes `bench.csv` and `bench.svg`.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import timm
import torch
import yaml
from matplotlib.figure import Figure
from timm.data import ImageDataset, create_loader, create_transform
from torchvision import transforms

from deit_helpers import artifacts, export, images, infer, machine, model, perf, store, surgery
from deit_helpers.artifacts import Run
from deit_helpers.backends import Backend

MODEL = "deit_small_patch16_224"
BOX_S = 5.0
COMPARED = (
    ("ours, openvino bf16", "timm, bf16"),
    ("ours, openvino bf16", "timm, fp32"),
    ("ours, onnxruntime fp32", "timm, fp32"),
    ("ours, onnxruntime fp32", "plain loop"),
    ("preprocessing, ours", "preprocessing, torchvision"),
    ("preprocessing, ours", "preprocessing, timm"),
)


def make_run(folder: Path, pictures: Path, **keys: Any) -> Run:
    """A run with a static graph for every batch size, and no store: images are streamed."""
    (folder / "params").mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{keys.get('model', MODEL)}.pth"
    if not checkpoint.exists():
        torch.manual_seed(0)
        torch.save(timm.create_model(keys.get("model", MODEL)).state_dict(), checkpoint)
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{path.name} 0\n" for path in sorted(pictures.iterdir())))
    spec = {"run": "bench", "model": MODEL, "checkpoint": str(checkpoint), "images": str(pictures), "labels": str(labels)}
    path = folder / "params" / f"{keys.get('run', 'bench')}.yaml"
    path.write_text(yaml.safe_dump({**spec, "stream": True, **keys}))
    os.chdir(folder)
    return artifacts.open_run(path)


def ours(run: Run, backend: Backend) -> float:
    """Seconds for the pipeline from the files to the logits."""
    start = time.perf_counter()
    for _ in backend.stream(images.batches(run, run.size, backend.dtype)):
        pass
    return time.perf_counter() - start


def timm_loop(run: Run, bf16: bool) -> Callable[[], float]:
    """timm's evaluation loop as `validate.py` runs it: its loader with a worker per core, its model, autocast."""
    net = model.build(run, fused_attention=True)
    loader = create_loader(
        ImageDataset(str(run.image_folder), reader="", class_map=""),
        input_size=(3, 224, 224),
        batch_size=run.size,
        use_prefetcher=False,
        interpolation="bicubic",
        crop_pct=224 / 256,
        num_workers=os.cpu_count(),
        device=torch.device("cpu"),
    )

    def once() -> float:
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for batch, _ in loader:
                net(batch).float().numpy()
        return time.perf_counter() - start

    return once


def plain_loop(run: Run) -> float:
    """A loop as a recipe has it: decode, crop, normalise, run, one after the other."""
    session = onnxruntime.InferenceSession(run.file("static_onnx"), providers=["CPUExecutionProvider"])
    paths = sorted(run.image_folder.iterdir())
    start = time.perf_counter()
    for i in range(0, len(paths), run.size):
        crops = np.stack([images.crop(images.decode(path), run.spec.recipe) for path in paths[i : i + run.size]])
        session.run(None, {"image": images.pad(i, images.tensors(crops, run.spec.recipe), run.size).tensor})
    return time.perf_counter() - start


def preprocessing(run: Run) -> dict[str, Callable[[], float]]:
    """Seconds to decode, resize and crop every image on one core: ours, torchvision, timm."""
    paths = sorted(run.image_folder.iterdir())
    steps = [transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    peers: dict[str, Callable[[Any], Any]] = {
        "ours": lambda image: images.crop(image, run.spec.recipe),
        "torchvision": transforms.Compose([*steps, transforms.PILToTensor()]),
        "timm": create_transform((3, 224, 224), interpolation="bicubic", crop_pct=224 / 256, use_prefetcher=True),
    }

    def timed(transform: Callable[[Any], Any]) -> float:
        start = time.perf_counter()
        for path in paths:
            transform(images.decode(path))
        return time.perf_counter() - start

    return {name: lambda transform=transform: timed(transform) for name, transform in peers.items()}


def interleaved(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round, in turn; a first, uncounted round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, once in contenders.items():
            took = once()
            click.echo(f"round {number} {name:24} {took:8.2f} s{' (warm-up)' if number == 0 else ''}")
            if number:
                seconds[name].append(took)
    return seconds


def against_n(folder: Path, pictures: Path, count: int) -> tuple[float, float]:
    """Seconds and peak MiB of 04 and 05 over `count` symlinked images, in a process of their own, with a small model."""
    many = folder / f"n{count}"
    if not many.exists():
        many.mkdir()
        given = sorted(pictures.iterdir())
        for i in range(count):
            (many / f"{i:06d}{given[i % len(given)].suffix}").symlink_to(given[i % len(given)].resolve())
    done = subprocess.run(
        [sys.executable, __file__, "--only-n", str(many), "--folder", str(folder)], capture_output=True, text=True, check=True
    )
    seconds, mib = done.stdout.split()[-2:]
    return float(seconds), float(mib)


def only_n(folder: Path, pictures: Path) -> None:
    small = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 1}, "run": pictures.name}
    run = make_run(folder, pictures, **small, checkpoint=str(folder / "small.pth"), batch_sizes=[32]).at(32)
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=1).state_dict(), folder / "small.pth")
    export.export(run)
    surgery.optimize(run)
    start = time.perf_counter()
    store.preprocess(run)
    infer.infer(run)
    click.echo(f"{time.perf_counter() - start} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


@click.command()
@click.option("--images", "pictures", type=click.Path(path_type=Path, exists=True), help="A folder of JPEGs.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("reports/bench"), show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("-b", "--batch-size", default=8, show_default=True)
@click.option("--counts", default="1000,50000", show_default=True, help="Numbers of images for cost against N; empty: none.")
@click.option("--only-n", type=click.Path(path_type=Path), hidden=True)
def main(pictures: Path | None, folder: Path, rounds: int, batch_size: int, counts: str, only_n: Path | None) -> None:
    folder = folder.resolve()
    if only_n:
        globals()["only_n"](folder, only_n)
        return
    if pictures is None:
        raise click.UsageError("--images: name a folder of JPEG photographs, such as make bench IMAGES=photos")
    pictures = pictures.resolve()
    rows: list[dict[str, Any]] = []

    def note(what: str, value: float, unit: str, low: float | None = None, high: float | None = None) -> None:
        rows.append({"what": what, "value": value, "unit": unit, "low": low, "high": high})
        click.echo(f"{what:60} {value:10.3f} {unit}" + (f"  ({low:.3f} to {high:.3f})" if low is not None else ""))

    base = make_run(folder, pictures, batch_sizes=[batch_size]).at(batch_size)
    export.export(base)
    surgery.optimize(base)
    store.preprocess(base)
    count = base.read("preprocess")["images"]
    backends: dict[str, Backend] = {}
    bf16 = base.spec.model_copy(update={"backend": "openvino", "precision": "bf16"})
    runs = {"onnxruntime fp32": base, "openvino bf16": Run(bf16, base.folder, base.root, batch_size)}
    for name, run in runs.items():
        backends[name] = infer.open_model(run)

    contenders: dict[str, Callable[[], float]] = {
        f"ours, {name}": lambda name=name: ours(runs[name], backends[name]) for name in runs
    }
    contenders |= {
        "timm, fp32": timm_loop(base, False),
        "timm, bf16": timm_loop(base, True),
        "plain loop": lambda: plain_loop(base),
    }
    one_core = preprocessing(base)
    found = interleaved({**contenders, **{f"preprocessing, {name}": once for name, once in one_core.items()}}, rounds)
    for name, seconds in found.items():
        rates = [count / s for s in seconds]
        note(name, float(np.median(rates)), "images/s", min(rates), max(rates))
    for new, old in COMPARED:
        each = [b / a for a, b in zip(found[new], found[old], strict=True)]
        note(f"{new} / {old}", float(np.median(each)), "x", min(each), max(each))

    cores = os.cpu_count() or 1
    prep_s = float(np.median(found["preprocessing, ours"])) / count
    decode = sorted(pictures.iterdir())
    start = time.perf_counter()
    for path in decode:
        images.decode(path)
    decode_s = (time.perf_counter() - start) / len(decode)
    flops = perf.flops_per_batch(onnx.load(base.file("static_onnx"))) / batch_size
    for name, backend in backends.items():
        pure = perf.pure_inference(backend, backend.blank(batch_size), BOX_S)["images_per_s"]
        peak = backend.peak_flops_per_s()  # type: ignore[attr-defined]
        rate = count / float(np.median(found[f"ours, {name}"]))
        note(f"{name}: model alone", pure, "images/s")
        note(f"{name}: matrix product", peak / 1e9, "GFLOP/s")
        note(f"{name}: end to end of its bound 1/(1/pure + preprocessing/cores)", rate * (1 / pure + prep_s / cores), "x")
        note(f"{name}: end to end of 1/(FLOPs/peak + decode/cores)", rate * (flops / peak + decode_s / cores), "x")
        backend.__exit__()
    measured = [(int(n), *against_n(folder, pictures, int(n))) for n in counts.split(",") if n]
    for n, seconds, mib in measured:
        note(f"{n} images, small model: {n / seconds:.0f} images/s, peak memory", mib, "MiB")

    facts = machine.machine()
    with (folder / "bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["what", "value", "unit", "low", "high"])
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({"what": f"{facts['cpu']}, {facts['cores']} cores", "unit": time.strftime("%Y-%m-%d")})
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    names = list(contenders)
    axes.barh(names[::-1], [count / float(np.median(found[name])) for name in names[::-1]], color="#0072B2")
    axes.set(xlabel=f"images/s from JPEG, batches of {batch_size}, {facts['cpu']}, {facts['cores']} cores")
    figure.savefig(folder / "bench.svg")
    click.echo(str(folder / "bench.csv"))


if __name__ == "__main__":
    main()
