"""`make bench`: how fast the pipeline is beside timm's evaluation loop and a plain ONNX Runtime loop, on this machine.

Not a test: nothing here passes or fails. All contenders answer the same JPEGs in one process, in turn (A B A B …), and so
does what bounds them, so that a noisy machine treats them alike. Two contenders are compared by the ratio of their rates
within a round: the median over the rounds with its 95 % interval, from six rounds on; that of seven is their range. Weights are
random: they do not change the speed. Writes `bench.csv` and `bench.svg`.
"""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
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
from torchvision import transforms as tv

from deit_helpers import open_run
from deit_helpers.backends import Pool, bench
from deit_helpers.data import batches, transforms
from deit_helpers.graph.flops import flops_per_batch
from deit_helpers.metrics import latency
from deit_helpers.model import checkpoint
from deit_helpers.run import hashing, host
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, optimize, preprocess

MODEL = "deit_small_patch16_224"
SMALL = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 1}, "batch_sizes": [32]}  # so that the pipeline counts
GPU_SIZES = [2**i for i in range(11)]
GPU_S, GPU_ROUNDS = 3.0, 7  # a batch size is timed for at most so long on a GPU, and so often from the store
EDITS = ["uint8_input", "fold_scale", "split_qkv", "class_token_only"]
BACKENDS = {
    "onnxruntime fp32": {"backend": "onnxruntime"},
    "onnxruntime fp32, edited": {"backend": "onnxruntime", "edits": EDITS},
    "openvino bf16": {"backend": "openvino", "precision": "bf16"},
    "openvino bf16, edited": {"backend": "openvino", "precision": "bf16", "edits": EDITS},
    "torch fp32": {"backend": "torch", "runtime": {"device": "cpu"}},
}
COMPARED = (
    *((f"{name}, from JPEG", other) for name in BACKENDS for other in ("timm fp32", "timm bf16", "plain loop")),
    *((f"{name}, edited, from JPEG", f"{name}, from JPEG") for name in BACKENDS if f"{name}, edited" in BACKENDS),
    *((f"{name}, from the store", f"{name}, model alone") for name in BACKENDS),
    ("preprocessing, ours", "preprocessing, torchvision"),
    ("preprocessing, ours", "preprocessing, timm"),
)
STORED = 2000  # images
STORE_ONE, STORE_ALL = "preprocessing to the store, one core", "preprocessing to the store, all cores"
Contenders = dict[str, Callable[[], object]]


class Rows:
    """What was found, printed as it comes and written at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, value: float, unit: str, interval: tuple[float, float] | None = None) -> None:
        low, high = interval or (None, None)
        self.rows.append({"what": what, "value": value, "unit": unit, "low": low, "high": high})
        click.echo(f"{what:68} {value:10.3f} {unit}" + (f"  ({low:.3f} to {high:.3f})" if interval else ""))

    def median(self, what: str, values: np.ndarray, unit: str) -> None:
        self.add(what, float(np.median(values)), unit, latency.interval(values, 0.5))

    def write(self, path: Path) -> None:
        facts = host.machine()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["what", "value", "unit", "low", "high"])
            writer.writeheader()
            writer.writerows(self.rows)
            writer.writerow({"what": f"{facts['cpu']}, {facts['cores']} cores", "unit": time.strftime("%Y-%m-%d")})


def make_run(folder: Path, pictures: Path, optimized: list[int] | None = None, **keys: Any) -> Run:
    """A run with a static graph for every batch size, or for those named."""
    (folder / "params").mkdir(parents=True, exist_ok=True)
    spec = {"run": "bench", "model": MODEL, "images": str(pictures), **keys}
    checkpoint = folder / f"{spec['model']}_{hashing.fingerprint(spec.get('model_args'))[:6]}.pth"
    if not checkpoint.exists():
        torch.manual_seed(0)
        torch.save(timm.create_model(spec["model"], **spec.get("model_args", {})).state_dict(), checkpoint)
    labels = folder / f"{spec['run']}_labels.txt"
    labels.write_text("".join(f"{path.name} 0\n" for path in sorted(pictures.iterdir())))
    path = folder / "params" / f"{spec['run']}.yaml"
    path.write_text(yaml.safe_dump({**spec, "checkpoint": str(checkpoint), "labels": str(labels)}))
    os.chdir(folder)
    run = open_run(path)
    export.export(run)
    for size in optimized or run.spec.batch_sizes:
        optimize.optimize(run.at(size))
    return run


def ours(runs: dict[str, Run], opened: ExitStack, peaks: dict[str, list[float]]) -> Contenders:
    """Every backend from the files, from the store and alone, and its matrix product, whose FLOP/s go into `peaks`."""
    contenders: Contenders = {}

    def through(model: Pool, run: Run) -> None:
        for _ in model.predictions(batches.batches(run, run.size, model.dtype)):
            pass

    def alone(model: Pool, batch: batches.Batch, times: int) -> None:
        for _ in model.predictions(itertools.repeat(batch, times)):
            pass

    for name, run in runs.items():
        model = opened.enter_context(bench.open_model(run))
        click.echo(f"{name}: {model.workers} batches at once")
        noise, rates = model.noise(run.size), peaks.setdefault(name, [])
        times = -(-run.read("preprocess")["images"] // run.size)
        contenders[f"{name}, from JPEG"] = lambda model=model, run=run: through(model, run.replace(stream=True))
        contenders[f"{name}, from the store"] = lambda model=model, run=run: through(model, run)
        contenders[f"{name}, model alone"] = lambda model=model, noise=noise, times=times: alone(model, noise, times)
        contenders[f"{name}, matrix product"] = lambda model=model, rates=rates: rates.append(model.backend.peak_flops_per_s())
    return contenders


def timm_loop(run: Run, bf16: bool) -> Callable[[], object]:
    """timm's evaluation loop as `validate.py` runs it: its loader with a worker per core, its model, autocast."""
    net = checkpoint.load(run, fused_attention=True)[0]
    loader = create_loader(
        ImageDataset(str(run.image_folder), reader="", class_map=""),
        input_size=(3, 224, 224),
        batch_size=run.size,
        use_prefetcher=False,
        interpolation="bicubic",
        crop_pct=224 / 256,
        num_workers=host.cores(),
        device=torch.device("cpu"),
    )

    def once() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for batch, _ in loader:
                net(batch).float().numpy()

    return once


def plain_loop(run: Run) -> Callable[[], object]:
    """A loop as a recipe has it: decode, crop, normalise, run, one after the other."""
    session = onnxruntime.InferenceSession(run.file("static_onnx"), providers=["CPUExecutionProvider"])
    paths = sorted(run.image_folder.iterdir())

    def once() -> None:
        for i in range(0, len(paths), run.size):
            crops = np.stack([transforms.crop(transforms.decode(path), run.spec.recipe) for path in paths[i : i + run.size]])
            session.run(None, {"image": batches.pad(i, transforms.tensors(crops, run.spec.recipe), run.size).tensor})

    return once


def preprocessing(run: Run) -> Contenders:
    """Decode, resize and crop on one core: ours, torchvision, timm; decode alone."""
    paths = sorted(run.image_folder.iterdir())
    steps = [tv.Resize(256, tv.InterpolationMode.BICUBIC), tv.CenterCrop(224)]
    on_one_core: dict[str, Callable[[Any], object]] = {
        "preprocessing, ours": lambda image: transforms.crop(image, run.spec.recipe),
        "preprocessing, torchvision": tv.Compose([*steps, tv.PILToTensor()]),
        "preprocessing, timm": create_transform(
            (3, 224, 224), interpolation="bicubic", crop_pct=224 / 256, use_prefetcher=True
        ),
        "decoding": lambda image: image,
    }

    def all_of(transform: Callable[[Any], object]) -> None:
        for path in paths:
            transform(transforms.decode(path))

    return {name: lambda one=one: all_of(one) for name, one in on_one_core.items()}


def to_the_store(folder: Path, pictures: Path) -> Contenders:
    """04 on one core and on all of them, over enough images for what it does once not to count."""
    run = make_run(folder, repeated(folder, pictures, STORED), [8], run="stored", batch_sizes=[8])
    every_core = os.sched_getaffinity(0)

    def make(cores: set[int]) -> None:
        run.file("images").unlink(missing_ok=True)
        os.sched_setaffinity(0, cores)
        try:
            preprocess.preprocess(run)
        finally:
            os.sched_setaffinity(0, every_core)

    chosen = {STORE_ONE: {min(every_core)}, STORE_ALL: every_core}
    return {name: lambda cores=cores: make(cores) for name, cores in chosen.items()}


def interleaved(contenders: Contenders, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every contender in every round, in turn; a first, uncounted round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, once in contenders.items():
            start = time.perf_counter()
            once()
            took = time.perf_counter() - start
            click.echo(f"round {number} {name:36} {took:8.2f} s{'' if number else ' (warm-up)'}")
            if number:
                seconds[name].append(took)
    return {name: np.array(each) for name, each in seconds.items()}


def report(rows: Rows, runs: dict[str, Run], timings: dict[str, np.ndarray], peaks: dict[str, np.ndarray]) -> None:
    """Rates, ratios, and how near the pipeline comes to what bounds it."""
    count, cores = next(iter(runs.values())).read("preprocess")["images"], host.cores()
    for name, seconds in timings.items():
        if name.endswith("matrix product"):
            continue
        rows.median(name, (STORED if name in (STORE_ONE, STORE_ALL) else count) / seconds, "images/s")
    for new, old in COMPARED:
        rows.median(f"{new} / {old}", timings[old] / timings[new], "x")
    one_core = timings["preprocessing, ours"]
    rows.median(f"{STORE_ALL} / (cores x one core)", timings[STORE_ONE] / cores / timings[STORE_ALL], "x")
    for name, peak in peaks.items():
        flops = count * flops_per_batch(onnx.load(runs[name].file("static_onnx"))) / runs[name].size
        end_to_end = timings[f"{name}, from JPEG"]
        rows.median(f"{name}, matrix product", peak / 1e9, "GFLOP/s")
        bound = timings[f"{name}, model alone"] + one_core / cores
        rows.median(f"{name}, from JPEG of 1/(1/alone + preprocessing/cores)", bound / end_to_end, "x")
        physical = flops / peak + timings["decoding"] / cores
        rows.median(f"{name}, from JPEG of 1/(FLOPs/peak + decoding/cores)", physical / end_to_end, "x")


def on_a_gpu(rows: Rows, folder: Path, pictures: Path) -> None:
    """PyTorch bf16, compiled, on a CUDA GPU: images/s with the input there, from the store, and the utilisation."""
    many = repeated(folder, pictures, 20 * GPU_SIZES[-1])
    run = make_run(folder, many, [1], run="gpu", batch_sizes=GPU_SIZES, backend="torch", precision="bf16")
    preprocess.preprocess(run)
    flops = flops_per_batch(onnx.load(run.at(1).file("static_onnx")))
    peak = None
    for size in GPU_SIZES:
        with bench.open_model(run.at(size)) as model:
            peak = peak or model.backend.peak_flops_per_s()  # type: ignore[attr-defined]
            noise = model.noise(size)
            model.warm_up(noise)
            rates = 1000 * size / bench.time_alone(model, noise, GPU_S)[0]
            name = f"torch bf16 on the GPU, batches of {size}"
            rows.median(f"{name}, model alone", rates, "images/s")
            rows.add(f"{name}, utilisation", 100 * float(np.median(rates)) * flops / peak, "%")
            count = max(20 * size, 2 * GPU_SIZES[-1])  # a few batches would time the start of the pipeline
            from_store = []
            for _ in range(GPU_ROUNDS):
                start = time.perf_counter()
                for _ in model.predictions(batches.batches(run.at(size), size, model.dtype, 0, count)):
                    pass
                from_store.append(count / (time.perf_counter() - start))
            rows.median(f"{name}, from the store", np.array(from_store), "images/s")


def repeated(folder: Path, pictures: Path, count: int) -> Path:
    """A folder of so many links to the pictures, one after the other and again."""
    many = folder / f"n{count}"
    shutil.rmtree(many, ignore_errors=True)
    many.mkdir(parents=True)
    for i, path in zip(range(count), itertools.cycle(sorted(pictures.iterdir())), strict=False):
        (many / f"{i:06d}{path.suffix}").symlink_to(path.resolve())
    return many


def against_n(rows: Rows, folder: Path, pictures: Path, counts: list[int]) -> None:
    """Seconds and peak memory of 04 and 05 over so many symlinked images, each count in a process of its own."""
    memory = {}
    for count in counts:
        many = repeated(folder, pictures, count)
        shutil.rmtree(folder / "reports" / many.name, ignore_errors=True)
        run = make_run(folder, many, run=many.name, **SMALL)
        command = [sys.executable, Path(__file__).with_name("pipeline_only.py"), run.root / "params" / f"{many.name}.yaml"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        prepared, inferred, memory[count] = map(float, done.stdout.split()[-3:])
        rows.add(f"{count} images, small model, 04", count / prepared, "images/s")
        rows.add(f"{count} images, small model, 05", count / inferred, "images/s")
        rows.add(f"{count} images, small model, peak memory of 04 and 05", memory[count], "MiB")
    if len(counts) > 1:
        rows.add(f"peak memory, {counts[-1]} / {counts[0]} images", memory[counts[-1]] / memory[counts[0]], "x")


def draw(timings: dict[str, np.ndarray], run: Run, path: Path) -> None:
    names = [name for name in timings if "from JPEG" in name or name.startswith(("timm", "plain"))]
    facts, count = host.machine(), run.read("preprocess")["images"]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(names[::-1], [count / float(np.median(timings[name])) for name in names[::-1]], color="#0072B2")
    axes.set(xlabel=f"images/s from JPEG, batches of {run.size}, {facts['cpu']}, {facts['cores']} cores")
    figure.savefig(path)


@click.command()
@click.option("--images", "pictures", type=click.Path(path_type=Path, exists=True), help="A folder of JPEGs.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("reports/bench"), show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("-b", "--batch-size", default=8, show_default=True)
@click.option("--counts", default="1000,50000", show_default=True, help="Numbers of images for cost against N; empty: none.")
def main(pictures: Path | None, folder: Path, rounds: int, batch_size: int, counts: str) -> None:
    if pictures is None:
        raise click.UsageError("--images: name a folder of JPEG photographs, such as make bench IMAGES=photos")
    folder, pictures, rows = folder.resolve(), pictures.resolve(), Rows()
    host.machine()  # remembered from here on, with all cores
    run, edited = (
        make_run(folder, pictures, run=name, batch_sizes=[batch_size], edits=edits).at(batch_size)
        for name, edits in {"bench": [], "edited": EDITS}.items()
    )
    for each in (run, edited):
        preprocess.preprocess(each)
    runs = {name: (edited if "edits" in keys else run).replace(**keys) for name, keys in BACKENDS.items()}
    peaks: dict[str, list[float]] = {}
    with ExitStack() as opened:
        contenders = ours(runs, opened, peaks)
        contenders |= {"timm fp32": timm_loop(run, False), "timm bf16": timm_loop(run, True), "plain loop": plain_loop(run)}
        contenders |= preprocessing(run) | to_the_store(folder, pictures)
        timings = interleaved(contenders, rounds)
    report(rows, runs, timings, {name: np.array(each[1:]) for name, each in peaks.items()})  # the first warmed up
    if torch.cuda.is_available():
        on_a_gpu(rows, folder, pictures)
    against_n(rows, folder, pictures, [int(count) for count in counts.split(",") if count])
    rows.write(folder / "bench.csv")
    draw(timings, run, folder / "bench.svg")
    click.echo(str(folder / "bench.csv"))


if __name__ == "__main__":
    main()
