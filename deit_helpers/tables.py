"""Every table of the notebooks and the report, made from the run's files."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import freshness, images, labels, publish
from .accuracy import TOP
from .artifacts import Run
from .display import Banner, Cell, Gallery, Links, Table, facts, from_records

DEMO_NOTE = (
    "Digits, a seeded random backbone and a head fitted on 400 other digits. These figures exercise the pipeline; "
    "they say nothing about DeiT on ImageNet."
)


def demo_note(run: Run) -> Banner | None:
    """Said on every page of the embedded demo."""
    return Banner("note", "This is the embedded demo.", DEMO_NOTE) if run.spec.checkpoint == "demo" else None


def export_facts(run: Run) -> Table:
    export = run.read("export")
    names = {side: f"{export[side]['name']} {tuple(export[side]['shape'])}" for side in ("input", "output")}
    return facts(
        f"The exported graph export/deit.onnx of {export['model']}",
        {
            "checkpoint": export["checkpoint"],
            "opset": export["opset"],
            **names,
            "parameters": f"{export['parameters']:,}",
            "checked with": f"{export['runtime']['backend']} {export['runtime']['version']}",
        },
    )


def parity(run: Run) -> Table:
    export = run.read("export")
    total = export["parity"]
    return from_records(
        f"torch against ONNX Runtime on {total['images']} real crops: largest difference {total['max_abs_diff']:.2g}, "
        f"logits' standard deviation {total['std']:.2g}, top-1 agreement {total['top1_agreement_percent']:.0f} %",
        export["parity_images"],
        {"image": "image", "torch_top1": "torch top-1", "onnx_top1": "ONNX top-1", "max_abs_diff": "max abs diff"},
        {"max_abs_diff": ".2e"},
    )


def operators(run: Run) -> Table:
    """Operators of the exported and of the static graph; those the symbolic batch needed are gone."""
    optimize = run.read("optimize")
    before, after = optimize["operators_before"], optimize["operators_after"]
    rows: list[list[Cell]] = [[op, before.get(op, 0), after.get(op, 0)] for op in sorted(before | after)]
    rows.append(["all", sum(before.values()), sum(after.values())])
    shape = "×".join(map(str, optimize["input_shape"]))
    return Table(f"Operators before and after, input {shape}", ("operator", "exported", f"bs{run.batch_size}"), rows)


def certificates(run: Run) -> Table:
    return from_records(
        f"Certificate of every edit, bs{run.batch_size}: logits before against after on real crops and noise",
        [
            {**row, "verdict": "identical" if row["exact"] else "equal within rounding"}
            for row in run.read("optimize")["edits"]
        ],
        {
            "name": "edit",
            "verdict": "verdict",
            "max_abs_diff": "max abs diff",
            "relative_diff": "diff / std",
            "top1_agreement": "top-1 agreement %",
            "images": "tensors",
            "nodes_before": "nodes before",
            "nodes_after": "nodes after",
        },
        {"max_abs_diff": ".1e", "relative_diff": ".1e", "top1_agreement": ".2f"},
    )


def conversion(run: Run) -> Table:
    convert = run.read("convert")
    return facts(
        f"Conversion for {convert['backend']}, bs{convert['batch_size']}",
        {
            "status": convert["status"],
            "why": convert["reason"],
            "device model": convert["device_model"],
            "ATC command on an Ascend host": convert["command_line"],
        },
    )


def recipe(run: Run) -> Table:
    prep = run.read("preprocess")
    values = prep["recipe"]
    return facts(
        f"Preprocessing of {prep['images']} images, recipe {values['name']}",
        {
            "resize short side": f"{values['resize_px']} px, {values['interpolation']}",
            "centre crop": f"{values['crop_px']} px",
            "mean": ", ".join(map(str, values["mean"])),
            "std": ", ".join(map(str, values["std"])),
            "images skipped": len(prep["skipped"]),
            f"sha256 of the first {prep['fingerprint_images']} tensors": prep["fingerprint"],
        },
    )


def skipped(run: Run) -> Table:
    rows = run.read("preprocess")["skipped"]
    return from_records(f"{len(rows)} images skipped, not counted anywhere", rows, {"name": "image", "reason": "why"})


def crops(run: Run, count: int = 12) -> Gallery:
    """Crops spread evenly over the data set, with name and label."""
    names, targets = images.read_index(run)
    store = np.load(run.file("images"), mmap_mode="r")
    chosen = sorted({i * len(names) // count for i in range(count)})
    words = labels.class_words(run)
    texts = [f"{names[i].rpartition('/')[2]}: {words.get(int(targets[i]), targets[i])}" for i in chosen]
    return Gallery(store[chosen], texts, f"{len(chosen)} of {len(names)} crops as the model sees them, file: class")


def stages(run: Run) -> Table:
    infer = run.read("infer")
    rows = [{**row, "interface": None} for row in infer["stages"]]
    next(row for row in rows if row["name"] == "inference")["interface"] = infer["interface_images_per_s"]
    return from_records(
        f"Stages, one after the other, over {infer['images']} images in batches of {infer['batch_size']} on "
        f"{_where(infer['runtime'])}; {infer['warmup_batches']} "
        f"warm-up batch not counted; Interface is the model call alone, {infer['padded_rows']} padded rows included",
        rows,
        {"name": "stage", "seconds": "seconds", "images_per_s": "images/s", "interface": "Interface images/s"},
        {"seconds": ".3f", "images_per_s": ".1f", "interface": ".1f"},
    )


def reference(run: Run) -> Table:
    logits = np.load(run.file("reference"), mmap_mode="r")
    own = np.load(run.file("logits"), mmap_mode="r")
    return facts(
        f"The reference on the same {len(logits)} tensors, against bs{run.batch_size}",
        {
            "logits": f"{logits.shape[0]} × {logits.shape[1]}",
            "largest difference": f"{np.abs(own - logits).max():.2g}",
            "standard deviation of the logits": f"{logits.std():.2g}",
            "same top-1 %": f"{100 * np.mean(own.argmax(axis=1) == logits.argmax(axis=1)):.2f}",
        },
    )


def accuracy(run: Run) -> Table:
    """Acc@1 to Acc@5 of every batch size that was scored, then the reference, then the expected figures (quoted)."""
    columns = ["model", "batch size", "images", *(f"Acc@{k}" for k in TOP), "95 % interval of Acc@1", "same top-1 %", "drop", "verdict"]
    rows: list[list[Cell]] = []
    scored = per_batch(run, "score", "accuracy")
    for size, row in scored.items():
        if isinstance(row, str):
            rows.append([run.spec.backend, size, None, *[None] * len(TOP), None, None, None, row])
            continue
        low, high = row["top1_ci95_percent"]
        shares = [row[f"top{k}_percent"] for k in TOP]
        agreement = row["reference"]["agreement_percent"]
        interval = f"{low:.2f} to {high:.2f}"
        name = f"{run.spec.backend} {run.spec.precision}"
        rows.append([name, size, row["images"], *shares, interval, agreement, row["drop_points"], row["verdict"]])
    done = [row for row in scored.values() if not isinstance(row, str)]
    quoted: list[int] = []
    if done:
        reference, expected = done[0]["reference"], done[0]["expected"]
        shares = [reference[f"top{k}_percent"] for k in TOP]
        rows.append([reference["name"], None, done[0]["images"], *shares, None, None, None, "reference"])
        quoted.append(len(rows))
        shares = [expected.get(f"top{k}_percent") for k in TOP]
        rows.append([expected["name"], None, expected.get("images"), *shares, None, None, None, f"expected: {expected['source']}"])
    limit = f", at most {done[0]['max_drop_points']:g} points of drop allowed" if done else ""
    formats = {name: ".2f" for name in columns if name.startswith("Acc@") or name in ("same top-1 %", "drop")}
    caption = f"Accuracy in percent, drop in points below the expected row (in italics){limit}"
    return Table(caption, columns, rows, formats, frozenset(quoted))


def verdict(run: Run) -> Banner:
    """One sentence over all batch sizes of the run."""
    scored = per_batch(run, "score", "accuracy")
    rows = [row for row in scored.values() if not isinstance(row, str)]
    missing = [f"bs{size}" for size, row in scored.items() if isinstance(row, str)]
    words = [row["verdict"] for row in rows]
    word = next((w for w in ("fail", "inconclusive") if w in words), "pass" if rows and not missing else "inconclusive")
    if not rows:
        return Banner(word, "Not scored yet.", "Run the notebooks first.")
    worst = max(rows, key=lambda row: row["drop_points"])
    text = (
        f"Acc@1 is {worst['top1_percent']:.2f} % on {worst['images']} images, {worst['drop_points']:.2f} points below "
        f"{worst['expected']['name']} ({worst['expected']['top1_percent']:.2f} %); at most {worst['max_drop_points']:g} allowed."
    )
    agreement = min(row["reference"]["agreement_percent"] for row in rows)
    text += f" Top-1 agrees with the fp32 reference on {agreement:.2f} % of the images."
    if missing:
        text += f" Not scored: {', '.join(missing)}."
    if word == "inconclusive" and not missing:
        text += " The sample is too small to tell: the interval of the drop holds the limit."
    return Banner(word, {"pass": "Pass.", "fail": "Fail.", "inconclusive": "Inconclusive."}[word], text)


def paired(run: Run) -> Table:
    row = run.read("accuracy")
    return facts(
        f"bs{row['batch_size']} against {row['reference']['name']}, image by image",
        {
            "same top-1 %": f"{row['reference']['agreement_percent']:.2f}",
            "only this run right": row["paired"]["only_this_right"],
            "only the reference right": row["paired"]["only_reference_right"],
            "McNemar's exact p": f"{row['paired']['p_value']:.3g}",
            "largest difference of a logit": f"{row['reference']['max_abs_diff']:.2g}",
        },
    )


def classes(run: Run, most: int = 20) -> Table:
    """The classes with the lowest Acc@1, at most `most`."""
    words = labels.class_words(run)

    def name(index: int | None) -> str | None:
        return None if index is None else words.get(index, str(index))

    every = run.read("accuracy")["per_class"]
    worst = sorted(every, key=lambda row: (row["top1_percent"], row["class"]))[:most]
    rows = [[name(r["class"]), r["images"], r["top1_percent"], name(r["mistaken_for"])] for r in worst]
    columns = ("class", "images", "Acc@1", "most often mistaken for")
    return Table(f"The {len(rows)} weakest of {len(every)} classes, bs{run.batch_size}", columns, rows, {"Acc@1": ".1f"})


def latency(run: Run) -> Table:
    perf = run.read("perf")
    return from_records(
        f"Latency of a batch of {perf['batch_size']} in ms: the model call alone, {_where(perf['runtime'])}; p99 needs 100 samples",
        [perf["latency_ms"]],
        {"n": "batches", "mean": "mean", "p50": "p50", "p90": "p90", "p99": "p99"},
        dict.fromkeys(("mean", "p50", "p90", "p99"), ".2f"),
    )


def throughput(run: Run) -> Table:
    """Rates of every batch size that was run; the fastest is not picked out, the reader chooses."""
    columns = ["batch size", "images/s", "end to end images/s", "efficiency %", "p50 ms", "p90 ms", "batches", "images"]
    rows: list[list[Cell]] = []
    where = ""
    for size, infer in per_batch(run, "infer", "infer").items():
        if isinstance(infer, str):
            rows.append([size, *[None] * 6, infer])
            continue
        where = f" on {_where(infer['runtime'])}"
        rate, e2e, numbers = infer["interface_images_per_s"], end_to_end(infer), infer["latency_ms"]
        rows.append([size, rate, e2e, 100 * e2e / rate, numbers["p50"], numbers["p90"], numbers["n"], infer["images"]])
    caption = (
        f"Throughput{where}: images/s of the model call alone, padded rows included, and end to end from the store to the "
        "logits; p50 and p90 of the call per batch"
    )
    return Table(caption, columns, rows, dict.fromkeys(columns[1:4], ".1f") | dict.fromkeys(columns[4:6], ".2f"))


def end_to_end(infer: dict[str, Any]) -> float:
    return next(row["images_per_s"] for row in infer["stages"] if row["name"] == "e2e")


def utilisation(run: Run) -> Table:
    perf = run.read("perf")
    return facts(
        f"Utilisation, bs{perf['batch_size']}, on {_where(perf['runtime'])}",
        {
            "GFLOP per image, counted in the graph": f"{perf['flops_per_image'] / 1e9:.2f}",
            "images/s, the model call alone": f"{perf['images_per_s']:.1f}",
            "GFLOP/s of the model": f"{perf['images_per_s'] * perf['flops_per_image'] / 1e9:.1f}",
            "GFLOP/s of a matrix product, measured now": f"{perf['peak_flops_per_s'] / 1e9:.1f}",
            "utilisation %": f"{perf['utilisation_percent']:.1f}",
        },
    )


def top_operators(run: Run, count: int = 12) -> Table:
    import pandas as pd

    profile = pd.read_csv(run.file("profile"))
    grouped = profile.groupby(["family", "op_type"], as_index=False).agg(
        nodes=("name", "size"), total_us=("total_us", "sum"), share_percent=("share_percent", "sum")
    )
    rows = grouped.sort_values("total_us", ascending=False).head(count).assign(total_ms=lambda t: t["total_us"] / 1000)
    perf = run.read("perf")
    return from_records(
        f"Operators by time over {perf['profiled_batches']} profiled batches of {perf['batch_size']} on {_where(perf['runtime'])}; families are "
        f"Ascend's names for the same work. {perf['operators_ms']:.1f} of {perf['profiled_ms']:.1f} ms per batch lie in operators",
        rows.to_dict("records"),
        {"family": "family", "op_type": "operator", "nodes": "nodes", "total_ms": "total ms", "share_percent": "share %"},
        {"total_ms": ".1f", "share_percent": ".2f"},
    )


def provenance(manifest: dict[str, Any]) -> Table:
    machine = manifest["machine"]
    return facts(
        "Where and with what this run was made",
        {
            "created": manifest["created"],
            "git commit": manifest["git_commit"] or "unknown",
            "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
            "packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
        },
    )


def files(manifest: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [path, row["bytes"], row["seconds"], row["sha256"][:16], ", ".join(row["inputs"]) or None]
        for path, row in manifest["artifacts"].items()
    ]
    columns = ("file", "bytes", "made in s", "sha256, first 16", "made from")
    return Table("Files of this run; manifest.json has the full hashes", columns, rows, {"bytes": ",", "made in s": ".1f"})


def summary(run: Run) -> Table:
    spec = run.spec
    sizes = ", ".join(map(str, spec.batch_sizes))
    return facts(
        f"Run {spec.run}",
        {
            "model": spec.model,
            "checkpoint": spec.checkpoint,
            "images": f"{spec.images}, recipe {spec.recipe.describe()}",
            "backend": f"{spec.backend} {spec.precision}, batch sizes {sizes}",
        },
    )


def graphs(run: Run) -> Table:
    """One row per batch size: shape, operators before and after, certificate."""
    columns = ["batch size", "input", "operators exported", "operators static", "edit", "max abs diff", "same top-1 %"]
    rows: list[list[Cell]] = []
    for size, row in per_batch(run, "optimize", "optimize").items():
        if isinstance(row, str):
            rows.append([size, row, *[None] * 5])
            continue
        shape = "×".join(map(str, row["input_shape"]))
        counts = [sum(row[key].values()) for key in ("operators_before", "operators_after")]
        rows += [[size, shape, *counts, e["name"], e["max_abs_diff"], e["top1_agreement"]] for e in row["edits"]]
    caption = "Static graphs, each certified against the exported graph on real crops and noise"
    return Table(caption, columns, rows, {"max abs diff": ".1e", "same top-1 %": ".2f"})


def pages(run: Run) -> Links:
    """Links to every published page, by step."""
    groups: dict[str, dict[str, str]] = {}
    for notebook, at, path in publish.pages(run):
        text = f"batch size {at.batch_size}" if at.batch_size else "page"
        groups.setdefault(notebook.replace("_", " "), {})[text] = run.relative(path)
    return Links(groups)


def per_batch(run: Run, stage: str, name: str) -> dict[int, dict[str, Any] | str]:
    """The JSON file `name` of every batch size of the run, or why it cannot be shown."""
    sizes = sorted({*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])})
    rows: dict[int, dict[str, Any] | str] = {}
    for size in sizes:
        at = run.at(size)
        why = freshness.problem(at, stage, strict=False)
        rows[size] = f"not shown: {why}" if why else at.read(name)
    return rows


def _where(runtime: dict[str, Any]) -> str:
    return f"{runtime['backend']} {runtime['version']} ({runtime['device']}, {runtime['precision']})"
