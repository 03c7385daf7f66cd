"""Tables over all batch sizes of a run: what the report shows first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import accuracy as accuracy_checks
from . import freshness, graph_tables, publish
from .accuracy import TOP
from .artifacts import Run, read_json
from .display import Banner, Cell, Facts, Links, Table, device_text, from_records, in_flight_text


def per_batch(run: Run, stage: str, name: str) -> dict[int, dict[str, Any] | str]:
    """The JSON file `name` of every batch size of the run, or why it cannot be shown."""
    sizes = sorted({*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])})
    rows: dict[int, dict[str, Any] | str] = {}
    for size in sizes:
        at = run.at(size)
        why = freshness.problem(at, stage, strict=False)
        rows[size] = f"not shown: {why}" if why else at.read(name)
    return rows


def accuracy(run: Run) -> Table:
    """Acc@1 to Acc@5 of every batch size that was scored, then the reference, then the expected figures (quoted)."""
    columns = {"model": "model", "batch_size": "batch size", "images": "images"}
    shares = {f"top{k}_percent": f"Acc@{k}" for k in TOP}
    columns |= {**shares, "interval": "95 % interval", "agreement": "same top-1 %", "drop_points": "drop", "verdict": "verdict"}
    rows: list[dict[str, Any]] = []
    scored = per_batch(run, "score", "accuracy")
    infers = {size: read_json(run.at(size).file("infer")) for size in scored}
    for size, row in scored.items():
        if isinstance(row, str):
            rows.append({"model": run.spec.backend, "batch_size": size, "verdict": row})
            continue
        low, high = row["top1_ci95_percent"]
        interval = f"{low:.2f}\u00a0to\u00a0{high:.2f}"  # kept on one line
        runtime = infers[size].get("runtime", {})
        name = " ".join(str(runtime.get(key, "")) for key in ("backend", "precision"))
        rows.append({**row, "model": name, "interval": interval, "agreement": row["reference"]["agreement_percent"]})
    done = [row for row in scored.values() if not isinstance(row, str)]
    quoted = set()
    if done:
        reference, expected = done[0]["reference"], done[0]["expected"]
        rows.append({**reference, "model": reference["name"], "images": done[0]["images"], "verdict": "reference"})
        quoted.add(len(rows))
        rows.append({**expected, "model": expected["name"], "verdict": f"expected: {expected['source']}"})
    for where, top1, top5 in {tuple(row): None for facts in infers.values() for row in facts.get("quoted_accuracy", [])}:
        quoted.add(len(rows))
        rows.append({"model": f"imported: {where}", "top1_percent": top1, "top5_percent": top5, "verdict": "quoted"})
    limit = f", of which {done[0]['max_drop_points']:g} is allowed" if done else ""
    caption = f"Accuracy in percent, drop in points below the expected row (in italics){limit}"
    formats = dict.fromkeys((*shares, "agreement", "drop_points"), ".2f")
    return from_records(caption, rows, columns, formats, quoted=frozenset(quoted))


def verdict(run: Run) -> Banner:
    """One sentence over all batch sizes of the run, about the check that came out worst."""
    scored = per_batch(run, "score", "accuracy")
    rows = [row for row in scored.values() if not isinstance(row, str)]
    missing = [f"bs{size}" for size, row in scored.items() if isinstance(row, str)]
    if not rows:
        return Banner("inconclusive", "Not scored yet.", "Run notebooks 01 to 06 first.")
    order = ("pass", "inconclusive", "fail")
    checks = [check for row in rows for check in row["checks"]]
    worst = max(checks, key=lambda check: (order.index(check["verdict"]), check["drop_points"] - check["max_drop_points"]))
    word = "inconclusive" if missing and worst["verdict"] == "pass" else worst["verdict"]
    text = f"On {rows[0]['images']} images {accuracy_checks.describe(worst)}."
    if worst["metric"] != "top-1 agreement":
        agreement = min(row["reference"]["agreement_percent"] for row in rows)
        text += f" Top-1 agrees with the fp32 reference on {agreement:.2f} % of the images."
    if run.spec.expected is None:
        text += " The spec names no published figure: this says that the port is faithful, nothing about the checkpoint."
    if missing:
        text += f" Not scored: {', '.join(missing)}."
    if worst["verdict"] == "inconclusive":
        text += " The sample is too small to tell: the interval of the drop holds the limit."
    return Banner(word, {"pass": "Pass.", "fail": "Fail.", "inconclusive": "Inconclusive."}[word], text)


def shown(run: Run, stage: str, draw: Callable[[Run], Any]) -> Any:
    """What `draw` makes of the run, or a note that says which notebook must run first."""
    why = freshness.problem(run, stage, strict=False)
    return Banner("note", "Not here yet.", f"{stage}: {why}; {freshness.how_to_make(run, stage)}") if why else draw(run)


def throughput(run: Run) -> Table:
    """Rates of every batch size that was run; the fastest is not picked out, the reader chooses."""
    columns = {
        "size": "batch size",
        "interface_images_per_s": "images/s",
        "e2e_images_per_s": "end to end images/s",
        "efficiency": "efficiency %",
        "p50": "p50 ms",
        "p90": "p90 ms",
        "at_once": "in flight",
        "n": "batches",
        "images": "images",
    }
    rows: list[dict[str, Any]] = []
    where, measured = "", list[dict[str, Any]]()
    for size, infer in per_batch(run, "infer", "infer").items():
        if isinstance(infer, str):
            rows.append({"size": size, "images": infer})
            continue
        where = f" on {device_text(infer['runtime'])}"
        measured.append(infer)
        share = infer["e2e_efficiency"]
        numbers = infer.get("in_flight") or [None]  # a vendor's file does not say it
        at_once = numbers[0] if len(numbers) == 1 else " or ".join(map(str, numbers))
        own = {"size": size, "efficiency": None if share is None else 100 * share, "at_once": at_once}
        rows.append({**infer, **infer["latency_ms"], **own})
    caption = (
        f"Throughput{where}: images/s of the model call alone over full batches, and end to end from the {run.spec.source} "
        "to the logits over all images; efficiency is the share of that time spent in the call; p50 and p90 of the call per "
        f"batch{in_flight_text(*measured)}"
    )
    rates = [key for key in columns if key.endswith("per_s")]
    formats = dict.fromkeys((*rates, "efficiency", "card_images_per_s"), ".1f") | {"p50": ".2f", "p90": ".2f"}
    if any(row.get("card_images_per_s") for row in rows):  # only tools that measure one device of several say it
        columns["card_images_per_s"] = "images/s of the card"
    return from_records(caption, rows, columns, {key: value for key, value in formats.items() if key in columns})


def summary(run: Run) -> Facts:
    spec = run.spec
    sizes = ", ".join(map(str, spec.batch_sizes))
    return Facts(
        f"Run {spec.run}",
        {
            "model": spec.model,
            "checkpoint": spec.checkpoint,
            "images": f"{spec.images}, recipe {spec.recipe.describe()}",
            "backend": f"{spec.backend} {spec.precision}, batch sizes {sizes}",
        },
    )


def graphs(run: Run) -> Table:
    """One row per batch size and edit: the certificate, and the operators it added and removed."""
    columns = ["batch size", "edit", "verdict", "max abs diff", "same top-1 %", "nodes", "operators"]
    rows: list[list[Cell]] = []
    alarm = set()
    for size, optimize in per_batch(run, "optimize", "optimize").items():
        if isinstance(optimize, str):
            rows.append([size, None, optimize, *[None] * 4])
            continue
        for row in (*optimize["edits"], *([optimize["chain"]] if run.spec.edits else [])):
            if row["verdict"] == "not equal":
                alarm.add(len(rows))
            nodes = f"{row['nodes_before']} → {row['nodes_after']}"
            numbers = [row["max_abs_diff"], row["top1_agreement"], nodes, graph_tables.operators_changed(row)]
            rows.append([size, row["name"], graph_tables.verdict(row), *numbers])
    caption = "Static graphs: each edit certified against the graph before it, on real crops, noise and hostile images"
    return Table(caption, columns, rows, {"max abs diff": ".1e", "same top-1 %": ".2f"}, alarm=frozenset(alarm))


def pages(run: Run) -> Links:
    """Links to every published page, by step."""
    groups: dict[str, dict[str, str]] = {}
    for notebook, at, path in publish.pages(run):
        text = f"batch size {at.batch_size}" if at.batch_size else "page"
        groups.setdefault(notebook.replace("_", " "), {})[text] = run.relative(path)
    return Links(groups)


def provenance(manifest: dict[str, Any]) -> Facts:
    machine = manifest["machine"]
    measured = sorted({row["machine"] for path, row in manifest["artifacts"].items() if path.endswith("infer.json")})
    return Facts(
        "Where and with what this run was made",
        {
            "created": manifest["created"],
            "git commit": manifest["git_commit"] or "unknown",
            "measured on": ", ".join(measured) or "nothing measured yet",
            "page made on": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
            **_npu(manifest["npu"]),
            "packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
        },
    )


def _npu(npu: dict[str, Any] | None) -> dict[str, Cell]:
    if not npu:
        return {}
    chips = ", ".join(f"{chip['name']} ({chip['health']}, {chip['memory_total_mb']} MB)" for chip in npu["chips"])
    return {"chips here": f"{chips}, driver {npu['driver']}"}


def files(manifest: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [path, row["bytes"], row["seconds"], row["sha256"][:16], ", ".join(row["inputs"]) or None]
        for path, row in manifest["artifacts"].items()
    ]
    columns = ("file", "bytes", "made in s", "sha256, first 16", "made from")
    return Table("Files of this run; manifest.json has the full hashes", columns, rows, {"bytes": ",", "made in s": ".1f"})
