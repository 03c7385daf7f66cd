"""`deit-report compare BASE NEW`: is NEW as right and as fast as BASE? -> `compare.json`, `junit.xml`, `comment.md`.

Two runs are read, nothing is inferred and no file of theirs changes: what is written lies in a folder of its own below NEW.

The interval of a rate. The samples of a run depend on each other, and a machine differs more from run to run than within
one, so an interval of the samples alone will not do. A run measures its rate twice, minutes apart. In 05 its level lies
between the slowest and the fastest of six blocks of batches, by their medians: a sign test that errs once in 32 times, with
the drift within the run in it. In 07, the model alone, it has a 95 % interval. Where 07 also timed a matrix product, by the
same runtime with the same settings, that tells how fast the machine was, and both are taken in relation to it, too. The
interval of NEW's rate over BASE's spans all of these: where they disagree, that is noise between measurements, measured. So a
loss is certain only where each of them shows it, and excluded only where each excludes it. A machine that was slower
throughout a run, by nothing that 05 and 07 noticed and not in the product, cannot be told from a slower port by two runs: it
is taken for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..data.sources import read_index
from ..errors import SpecError, one_line
from ..metrics import proportions
from ..metrics.classification import among, label_ranks
from ..metrics.latency import LEAST, together
from ..metrics.verdict import WORST_LAST, against_reference, decide
from ..report import words
from ..run import records
from ..run.expected import MAX_DROP_POINTS, valid_classes
from ..run.folder import Run, project_root
from ..run.hashing import fingerprint
from ..run.manifest import all_stages
from ..run.validation import given_path
from . import page

MOST_LISTED, MOST_NAMED, MOST_OPERATORS = 1000, 24, 10
PLACE = ("cpu", "cores", "device", "hardware", "backend", "source")  # rates are compared where these are the same
PRODUCT = "07, a matrix product, GFLOP/s"
Check = dict[str, Any]


def opened(folder: str | Path) -> Run:
    """The run in a folder, or of its `spec.yaml`, from the repository root or from `notebooks/` alike; nothing is written.

    Raises:
        SpecError: no run folder, or a wrong spec.
    """
    given = given_path(folder)
    path = given if given.exists() else project_root() / given
    spec = path if path.name == "spec.yaml" else path / "spec.yaml"
    if not spec.is_file() or not (spec.parent / "meta").is_dir():
        raise SpecError(f"{folder}: no run folder, it has no spec.yaml and meta/; give a folder such as reports/demo")
    return Run.resolve(spec.resolve())


def compare(base: Run, new: Run, max_drop: float = MAX_DROP_POINTS, max_slowdown: float = 5.0) -> dict[str, Any]:
    """The content of `compare.json`: both sides, every batch size that both have, checks, differences and the verdict.

    Args:
        max_drop: points of Acc@1 that may be lost, the margin of a paired test on the same images; 100 allows any.
        max_slowdown: percent of BASE's rate that may be lost; 100 allows any, on whatever machines.
    """
    sizes = [size for size in base.spec.batch_sizes if size in new.spec.batch_sizes]
    reason = _not_comparable(base, new, sizes)
    rows = [] if reason else [_at_size(base.at(n), new.at(n), (max_drop, max_slowdown), len(sizes)) for n in sizes]
    checks = [check for row in rows for check in row.pop("checks")]
    checks += [{"name": "comparable", "verdict": "inconclusive", "text": f"not comparable: {reason}"}] if reason else []
    checks.sort(key=lambda check: (-WORST_LAST.index(check["verdict"]), check.get("limit", 0) - check.get("at_most", 0)))
    verdict = checks[0]["verdict"]
    worst = {check["name"].split()[0]: check["text"] for check in reversed(checks)}  # of each kind
    said = [text for _, text in sorted(worst.items())] if verdict == "pass" else [checks[0]["text"]]
    return {
        **{"base": _side(base), "new": _side(new), "max_drop_points": max_drop, "max_slowdown_percent": max_slowdown},
        **{"not_comparable": reason, "verdict": verdict, "line": f"{verdict}: {'; '.join(said)}"},
        **{"checks": checks, "batch_sizes": rows, "differences": _differences(base, new)},
    }


def _side(run: Run) -> dict[str, Any]:
    made = [record for at in run.at_each() if (record := records.read_record(at, "infer"))]
    facts = {key: made[-1].get(key) if made else None for key in ("created", "git_commit")}
    what = f"{run.spec.model} on {run.spec.backend} {run.spec.precision_text}"
    return {"name": run.folder.name, "folder": str(run.folder), "what": what, **facts}


def _not_comparable(base: Run, new: Run, sizes: list[int]) -> str | None:
    """Why not even accuracies can be compared, or None."""
    for run in (base, new):
        if why := records.problem(run, "preprocess", strict=False):
            return f"{run.folder}: {why}; {records.how_to_make(run, 'preprocess')}"
    if not sizes:
        have = [", ".join(map(str, run.spec.batch_sizes)) for run in (base, new)]
        return f"no batch size in common: base has {have[0]}, new has {have[1]}"
    if not (scored := [size for size in sizes if not _unscored(base.at(size), new.at(size))]):
        return _unscored(base.at(sizes[0]), new.at(sizes[0]))
    (names, labels), (new_names, new_labels) = read_index(base), read_index(new)
    if names != new_names:
        both = len({*names} & {*new_names})
        return f"different images: base has {len(names):,}, new has {len(new_names):,}, {both:,} names are in both"
    if len(other := np.flatnonzero(labels != new_labels)):
        return f"different labels: those of {len(other):,} of {len(names):,} images, the first is {one_line(names[other[0]])}"
    facts = [(run.read("preprocess"), records.read_record(run, "preprocess")["packages"]) for run in (base, new)]
    made = [(content.get("recipe"), packages) for content, packages in facts]
    stores = [records.hashes(run, "preprocess").get("dataset/images.npy") for run in (base, new)]
    pixels = {content.get("fingerprint") for content, _ in facts}, {*stores} - {None}  # a stream has no store
    if made[0] == made[1] and max(map(len, pixels)) > 1:
        return "different images under the same names: one recipe and decoder gave other pixels"
    widths = [np.load(run.at(scored[0]).file("logits"), mmap_mode="r").shape[1] for run in (base, new)]
    if widths[0] != widths[1] or valid_classes(base) != valid_classes(new):
        return f"different classes: base has {widths[0]}, new has {widths[1]}, or `expected` seeks answers among other ones"
    return None


def _unscored(base: Run, new: Run) -> str | None:
    for run in (base, new):
        if why := records.problem(run, "infer", strict=False):
            return f"{run.folder}, bs{run.size}: {why}; {records.how_to_make(run, 'infer')}"
    return None


def _at_size(base: Run, new: Run, limits: tuple[float, float], tests: int) -> dict[str, Any]:
    if why := _unscored(base, new):
        return {"batch_size": new.size, "checks": [_undecided(f"bs{new.size}", why)]}
    accuracy, right = _accuracy(base, new, limits[0], tests)
    throughput, fast = _throughput(base, new, limits[1])
    facts = {"accuracy": accuracy, "throughput": throughput, "operators": _operators(base, new)}
    return {"batch_size": new.size, **facts, "checks": [right, fast]}


def _undecided(name: str, why: str) -> Check:
    return {"name": name, "verdict": "inconclusive", "text": f"{name}: {why}"}


def _check(name: str, bounds: list[float], limit: float, unit: str, detail: str) -> Check:
    low, high = bounds
    verdict = decide(0.0, bounds, limit)
    lost = {"pass": f"at most {max(high, 0):.2f}", "fail": f"at least {low:.2f}"}.get(verdict, f"{low:.2f} to {high:.2f}")
    text = f"{name} lost {lost} {unit} ({detail}), limit {limit:g}"
    return {"name": name, "verdict": verdict, "text": text, "at_least": low, "at_most": high, "limit": limit}


def _accuracy(base: Run, new: Run, max_drop: float, tests: int) -> tuple[dict[str, Any], Check]:
    """The paired test of non-inferiority, of which 5 % / tests may fail by chance, and the answers that changed."""
    (names, labels), valid = read_index(new), valid_classes(new)
    before, now = (among(np.load(run.file("logits")), valid) for run in (base, new))
    pairs = proportions.paired(label_ranks(now, labels), label_ranks(before, labels))
    was, answers = before.argmax(axis=1), now.argmax(axis=1)
    base_top1, top1 = (100 * float(np.mean(side == labels)) for side in (was, answers))
    row = {"metric": "Acc@1", "percent": top1, "expected_percent": base_top1, "of": "base", "max_drop_points": max_drop}
    judged = against_reference(row, pairs, len(labels), proportions.LEVEL / tests)
    bounds = [judged["drop_at_least_points"], judged["drop_at_most_points"]]
    detail = f"{pairs['only_reference_right']} images lost, {pairs['only_this_right']} gained"
    if np.array_equal(before, now):  # nothing is left to chance: both compute the same
        bounds, detail = [0.0, 0.0], f"on {len(labels):,} images the logits are the same bit for bit"
    elif judged["verdict"] == "inconclusive":
        detail += f"; images to settle it: {judged['images_to_decide'] or 'more than there are'}"
    changed = np.flatnonzero(answers != was)
    kind = np.select([was[changed] == labels[changed], answers[changed] == labels[changed]], [0, 2], 1)
    listed = [
        {"index": i, "image": names[i], "label": int(labels[i]), "base_answer": int(was[i]), "answer": int(answers[i])}
        for i in changed[np.argsort(kind, kind="stable")][:MOST_LISTED].tolist()  # lost, never right, gained
    ]
    facts = {"images": len(labels), "base_top1_percent": base_top1, "top1_percent": top1, **pairs}
    lost = [names[i] for i in changed[kind == 0]][:MOST_NAMED]
    check = _check(f"Acc@1 of bs{new.size}", bounds, max_drop, "points", detail) | {"lost": lost}
    return {**facts, "changed": len(changed), "changed_images": listed}, check


def _throughput(base: Run, new: Run, max_slowdown: float) -> tuple[dict[str, Any], Check]:
    name, before, now = f"throughput of bs{new.size}", _rates(base), _rates(new)
    ratios = {of: [now[of][0] / row[0], now[of][1] / row[2], now[of][2] / row[1]] for of, row in before.items() if of in now}
    spans = {of: row for of, row in ratios.items() if of != PRODUCT}
    if PRODUCT in ratios and _machine(base) == _machine(new) and base.spec.runtime == new.spec.runtime:
        spans |= {f"{of}, by that of the product": [x / ratios[PRODUCT][0] for x in row] for of, row in spans.items()}
    facts: dict[str, Any] = {"base": before, "new": now, "ratios": {**ratios, **spans}}
    if max_slowdown >= 100:
        return facts, {"name": name, "verdict": "pass", "text": f"{name}: any loss is allowed"}
    if all(base.file(file).read_bytes() == new.file(file).read_bytes() for file in ("latency", "infer")):
        return facts, _check(name, [0.0, 0.0], max_slowdown, "%", "it is the same measurement")
    if reason := _untrustworthy(base, new) or (None if spans else "too few batches for an interval"):
        return facts, _undecided(name, reason)
    ratio, low, high = np.array([*spans.values()]).T
    detail = f"{ratio[0]:.3f} of base's rate, {low.min():.3f} to {high.max():.3f}"
    lost = [100 * (1 - float(high.max())), 100 * (1 - float(low.min()))]
    return facts, _check(name, lost, max_slowdown, "%", detail)


def _rates(run: Run) -> dict[str, list[float]]:
    """Rates with an interval, [rate, least, most], as each measurement of the run has them (see above)."""
    import pandas as pd

    table, rates = pd.read_csv(run.file("latency")), dict[str, list[float]]()
    full = table[table["images"] == table["images"].max()].dropna(subset="interface_ms")
    calls_ms = together(full["interface_ms"].to_numpy(), max(files.read_json(run.file("infer")).get("in_flight") or [1]))
    if len(calls_ms) >= LEAST:
        per_s = 1000 * int(full["images"].iloc[0]) / calls_ms
        blocks = [float(np.median(block)) for block in np.array_split(per_s, LEAST)]  # one after the other in time
        rates["05"] = [float(np.median(per_s)), min(blocks), max(blocks)]
    perf = {} if records.problem(run, "perf", strict=False) else run.read("perf")
    if (pure := perf.get("pure") or {}).get("images_per_s_ci95"):
        rates["07, the model alone"] = [pure["images_per_s"], *pure["images_per_s_ci95"]]
    if perf.get("peak_flops_per_s") and not run.spec.peak_tflops:
        rates[PRODUCT] = [perf["peak_flops_per_s"] / 1e9] * 3
    return rates


def _untrustworthy(base: Run, new: Run) -> str | None:
    """Why nothing follows from the rates: taken elsewhere, beside other work, or of a machine that did not come to rest."""
    apart = {key: sides for key, sides in _differing(_machine(base), _machine(new)).items() if key in PLACE}
    if texts := [f"{key} {before} in base, {now} in new" for key, (before, now) in apart.items()]:
        return f"not comparable, measured elsewhere or otherwise: {'; '.join(texts)}"
    for side, run in (("base", base), ("new", new)):
        pure = files.read_json(run.file("perf")).get("pure") or {}
        if why := words.disturbed(run) or ("07 ended before its median settled" if pure.get("settled") is False else None):
            return f"{side}: {why}: measure it again on a quiet machine"
    return None


def _machine(run: Run) -> dict[str, Any]:
    """What 05 was measured on and from."""
    facts = files.read_json(run.file("infer"))
    return {**facts.get("machine", {}), **facts.get("runtime", {}), "backend": run.spec.backend, "source": run.spec.source}


def _operators(base: Run, new: Run) -> list[dict[str, Any]]:
    """ms per batch of families (op_type None), then of the operators that take most; empty unless both were profiled."""
    import pandas as pd

    sides = []
    for run in (base, new):
        if records.problem(run, "perf", strict=False) or not (batches := run.read("perf")["profiled_batches"]):
            return []
        sides.append(pd.read_csv(run.file("profile")).groupby(["family", "op_type"])["total_us"].sum() / batches / 1000)
    both = pd.concat(sides, axis=1, keys=["base_ms", "ms"]).fillna(0.0)
    families = both.groupby(level=0).sum().assign(op_type=None).reset_index()
    top = both.loc[both.max(axis=1).nlargest(MOST_OPERATORS).index].reset_index()
    return [*families.to_dict("records"), *top.to_dict("records")]


def _differences(base: Run, new: Run) -> dict[str, dict[str, list[Any]]]:
    """What else differs, `kind: key: [base, new]`: the spec, the packages that made the files, what was measured on."""
    specs, packages, machines = [], [], []
    for run in (base, new):
        specs.append(run.spec.model_dump(mode="json", exclude={"run"}))
        made = [records.read_record(at, stage).get("packages", {}) for stage, at in all_stages(run)]
        packages.append({name: version for versions in made for name, version in versions.items()})
        machines.append(_machine(run.at(run.spec.batch_sizes[-1])))
    return {kind: _differing(*sides) for kind, sides in (("spec", specs), ("package", packages), ("machine", machines))}


def _differing(base: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [base.get(key), new.get(key)] for key in sorted({*base, *new}) if base.get(key) != new.get(key)}


def folder_of(base: Run, new: Run) -> Path:
    """`compare/NAME` below NEW, by the name of BASE's folder; if that of another folder is there, with a hash of its path."""
    path = new.folder / "compare" / base.folder.name
    there = files.read_json(path / "compare.json").get("base", {}).get("folder", str(base.folder))
    return path if there == str(base.folder) else path.with_name(f"{path.name}-{fingerprint(str(base.folder))[:8]}")


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Write `compare.json`, `junit.xml` (a test case per check) and `comment.md` (for a pull request)."""
    files.write_json(folder / "compare.json", facts)
    files.write_text(folder / "junit.xml", page.junit(facts))
    files.write_text(folder / "comment.md", page.comment(facts))
