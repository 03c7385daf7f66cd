"""The tables of one notebook, made from the run's files. Those over all batch sizes are in `overview.py`."""

from __future__ import annotations

import numpy as np

from . import accuracy, images, labels
from .artifacts import Run, read_json
from .ascend.cann import is_emulated
from .display import Banner, Facts, Gallery, Stack, Table, from_records, runtime_text

DEMO_NOTE = (
    "Digits, a seeded random backbone and a head fitted on other digits. These figures exercise the pipeline; "
    "they say nothing about DeiT on ImageNet."
)


WEAKEST = 20  # so many classes are listed
EMULATED_NOTE = "A program stood in for the device and its tools: rates are those of this computer, operator times made up."
IMPORTED_NOTE = "Another tool measured these figures elsewhere; nothing of this page was run again here."


def notes(run: Run) -> Stack:
    """What must be said on every page: the embedded demo, an emulated device, imported figures."""
    found = []
    if run.spec.checkpoint == "demo":
        found.append(Banner("note", "This is the embedded demo.", DEMO_NOTE))
    sizes = [run.at(size) for size in {*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])}]
    records = [read_json(at.file(name)) for at in sizes for name in ("convert", "infer")]
    if is_emulated(run.spec.backend) or any(r.get("emulated") or r.get("runtime", {}).get("emulated") for r in records):
        found.append(Banner("fail", "Emulated device, no hardware measured.", EMULATED_NOTE))
    if any(record.get("imported_from") for record in records):
        found.append(Banner("inconclusive", "Imported figures.", IMPORTED_NOTE))
    quoted = {top1: where for record in records for where, top1, _ in record.get("quoted_accuracy", [])}
    if len(quoted) > 1:
        both = " and ".join(f"{top1:.2f} % ({where})" for top1, where in sorted(quoted.items()))
        text = f"Acc@1 is {both}: {max(quoted) - min(quoted):.2f} points apart, and neither can be traced to a cause."
        found.append(Banner("inconclusive", "The imported accuracies disagree.", text))
    return Stack(found)


def export_facts(run: Run) -> Facts:
    export = run.read("export")
    names = {side: f"{export[side]['name']} {tuple(export[side]['shape'])}" for side in ("input", "output")}
    return Facts(
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


def conversion(run: Run) -> Facts:
    convert = run.read("convert")
    return Facts(
        f"Conversion for {convert['backend']}, bs{convert['batch_size']}",
        {
            "status": convert["status"],
            "why": convert["reason"],
            "device model": convert["device_model"] or "none",
            "chip": convert["soc_version"] or "not known here",
            "ATC command on an Ascend host": convert["command_line"],
        },
    )


def recipe(run: Run) -> Facts:
    prep = run.read("preprocess")
    values = prep["recipe"]
    return Facts(
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


def crops(run: Run, count: int = 6) -> Gallery:
    """Crops spread evenly over the data set, with name and label."""
    names, targets = labels.read_index(run)
    chosen = sorted({i * len(names) // count for i in range(count)})
    words = labels.class_words(run)
    texts = [f"{names[i].rpartition('/')[2]}: {words.get(int(targets[i]), targets[i])}" for i in chosen]
    return Gallery(
        images.crops_at(run, chosen), texts, f"{len(chosen)} of {len(names)} crops as the model sees them, file: class"
    )


def stages(run: Run) -> Table:
    infer = run.read("infer")
    interface = {"inference": infer["interface_images_per_s"]}
    rows = [{**row, "interface": interface.get(row["name"])} for row in infer["stages"]]
    own = infer["warmup_batches"] is not None  # a vendor's file does not say all of it
    overlap = "; data read and preprocess run in threads ahead of the model, so seconds overlap" if own else ""
    over = f" over {infer['images']} images" if infer["images"] else ""
    warm_up = f"; {infer['warmup_batches']} warm-up batches not counted" if own else ""
    full = f", over {infer['interface_batches']} full batches" if infer["interface_batches"] else ""
    return from_records(
        f"Stages{over} in batches of {infer['batch_size']} on {runtime_text(infer['runtime'])}{overlap}"
        f"{warm_up}; Interface is the model call alone{full}",
        rows,
        {"name": "stage", "seconds": "seconds", "images_per_s": "images/s", "interface": "Interface images/s"},
        {"seconds": ".3f", "images_per_s": ".1f", "interface": ".1f"},
    )


def reference(run: Run) -> Facts:
    logits = np.load(run.file("reference"))
    found = accuracy.compare(logits, np.load(run.file("logits")))
    return Facts(
        f"The reference on the same {len(logits)} tensors, against bs{run.batch_size}",
        {
            "logits": f"{logits.shape[0]} × {logits.shape[1]}",
            "largest difference": f"{found['max_abs_diff']:.2g}",
            "standard deviation of the logits": f"{found['std']:.2g}",
            "same top-1 %": f"{found['top1_agreement_percent']:.2f}",
        },
    )


def paired(run: Run) -> Facts:
    row = run.read("accuracy")
    low, high = row["paired"]["difference_ci95_points"]
    return Facts(
        f"bs{row['batch_size']} against {row['reference']['name']}, image by image",
        {
            "same top-1 %": f"{row['reference']['agreement_percent']:.2f}",
            "only this run right": row["paired"]["only_this_right"],
            "only the reference right": row["paired"]["only_reference_right"],
            "Acc@1 above the reference, points": f"{row['paired']['difference_points']:+.2f} ({low:+.2f} to {high:+.2f}, 95 %)",
            "McNemar's exact p": f"{row['paired']['p_value']:.3g}",
            "largest difference of a logit": f"{row['reference']['max_abs_diff']:.2g}",
        },
    )


def classes(run: Run) -> Table:
    """The classes with the lowest Acc@1."""
    words = labels.class_words(run)

    def name(index: int | None) -> str | None:
        return None if index is None else words.get(index, str(index))

    every = run.read("accuracy")["per_class"]
    worst = sorted(every, key=lambda row: (row["top1_percent"], row["class"]))[:WEAKEST]
    rows = [[name(r["class"]), r["images"], r["top1_percent"], name(r["mistaken_for"])] for r in worst]
    columns = ("class", "images", "Acc@1", "most often mistaken for")
    return Table(f"The {len(rows)} weakest of {len(every)} classes, bs{run.batch_size}", columns, rows, {"Acc@1": ".1f"})
