"""The self-audit of a report: figures of its files that cannot all be true are named with both values, whoever wrote them.

Reads what the stages wrote, spec, records and pages; `verify` computes the figures from the predictions again. What was
computed from each other agrees to 1e-9 of its value, the rest to the decimals of the file that prints it.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable
from html import unescape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..ascend import benchmark
from ..errors import DeitError, SpecError, one_line
from ..files import read_json
from ..metrics import latency, verdict
from ..metrics.proportions import wilson_percent
from ..report.elements import Banner, Stack, Table
from ..run import records
from ..run.expected import expected_row
from ..run.folder import Run
from ..run.manifest import all_stages

HOLDS, BROKEN, NOT_APPLICABLE = "holds", "broken", "not applicable"
CSV_S = 5e-10  # latency.csv has six decimals of a ms
PRINTED = 5e-6  # of a value with six digits
TOPS = [[f"accuracy:{side}top{k}_percent" for k in range(1, 6)] for side in ("", "reference.")]
AGREEMENT = "accuracy:reference.agreement_percent"
PERCENTILES = [[f"{place}latency_ms.{name}" for name in ("p50", "p90", "p99")] for place in ("infer:", "perf:pure.")]
_RATES = ("e2e_images_per_s", "e2e_efficiency", "images_per_s_without_waiting")
QUOTED = ("images", "load_s", *_RATES, "latency_ms", "in_flight", "stages")  # of 05 by 07
Outcomes = Iterable[str | None]  # of comparisons, as `same` gives them
Named = str | tuple[str, Any]  # `FILE:KEY.KEY` of a JSON file, or what a value is, and the value; None where it is not known


class Row(NamedTuple):
    """A rule, whether it HOLDS, is BROKEN or NOT_APPLICABLE, and the mismatches, or what it asks for in vain."""

    rule: str
    statement: str
    outcome: str
    detail: str


class _UnknownError(Exception):
    """A rule asks for what this run does not have."""


class Evidence:
    """The files of a run at one batch size."""

    def __init__(self, run: Run):
        self.run, self.size = run, run.size
        self._json = functools.cache(lambda file: read_json(run.file(file)))  # many rules look at the same files
        self.csv = functools.cache(self._rows)

    def named(self, place: str) -> tuple[str, Any]:
        """The value at `FILE:KEY.KEY`, and the place in words. Rows of a list go by their number, stages by their name."""
        file, _, keys = place.partition(":")
        value: Any = self._json(file)
        for key in keys.split("."):
            if isinstance(value, list):
                rows = {row["name"]: row for row in value} if "stages" in keys else {}
                value = rows | {str(i): row for i, row in enumerate(value)}
            value = value.get(key) if isinstance(value, dict) else None
        return f"{self.run.relative(self.run.file(file))} {keys}", value

    def known(self, place: str) -> bool:
        return self.named(place)[1] is not None

    def __getitem__(self, place: str) -> Any:
        """A value that the rule cannot do without."""
        if not self.known(place):
            raise _UnknownError(f"no {self.named(place)[0]}")
        return self.named(place)[1]

    def _rows(self, file: str) -> pd.DataFrame:
        """The rows of a CSV file, without which the rule says nothing."""
        path = self.run.file(file)
        if not path.exists() or (rows := pd.read_csv(path, dtype={"name": str})).empty:
            raise _UnknownError(f"no rows in {self.run.relative(path)}")
        return rows

    def same(self, *values: Named, part: float = 1e-9, slack: float = 0.0) -> str | None:
        """Empty where all values are the first, numbers but for `part` of them or `slack`, else which are not. None: no two."""
        (place, first), *others = self._of(values) or [("", None)]
        wrong = [one for one in others if not _equal(first, one[1], part, slack)]
        return " but ".join(map(_text, [(place, first), *wrong])) if wrong else "" if others else None

    def ascending(self, *values: Named, slack: float = 0.0) -> str | None:
        """As `same`, where no value may be below the one before it."""
        wrong = [(a, b) for a, b in itertools.pairwise(self._of(values)) if a[1] > b[1] + slack]
        return "; ".join(f"{_text(a)}, above {_text(b)}" for a, b in wrong) if len(self._of(values)) > 1 else None

    def _of(self, values: Iterable[Named]) -> list[tuple[str, Any]]:
        pairs = [self.named(one) if isinstance(one, str) else one for one in values]
        return [pair for pair in pairs if pair[1] is not None]


def _equal(a: Any, b: Any, part: float, slack: float) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=part, abs_tol=slack) if numbers else bool(a == b)


def _text(named: tuple[str, Any]) -> str:
    return f"{named[0]} is {f'{named[1]:.10g}' if isinstance(named[1], float) else one_line(named[1])}"


def _whole(what: str, count: float) -> list[tuple[str, float]]:
    return [(what, count), ("the nearest whole number", round(count))]


Rule = Callable[[Evidence], Outcomes]
RULES: dict[str, tuple[str, Rule]] = {}  # by name: what must hold, and the function that looks


def rule(name: str, statement: str) -> Callable[[Rule], Rule]:
    """A decorator that enters a rule into RULES."""
    return lambda looks: RULES.setdefault(name, (statement, looks))[1]


@rule("order of Acc@k", "Acc@1 ≤ Acc@2 ≤ … ≤ Acc@5, of the run and of its reference")
def _(at: Evidence) -> Outcomes:
    return [at.ascending(*tops) for tops in TOPS]


@rule("whole images", "every accuracy, and the agreement, is a whole number of images")
def _(at: Evidence) -> Outcomes:
    keys, images = (*TOPS[0], *TOPS[1], AGREEMENT), at["accuracy:images"]
    return [at.same(*_whole(f"{key} x images", at[key] * images / 100), slack=1e-6) for key in keys]


@rule("interval", "the 95 % intervals of Acc@1 and Acc@5 are Wilson's of hits and images")
def _(at: Evidence) -> Outcomes:
    for key in (TOPS[0][0], TOPS[0][4]):
        bounds = wilson_percent(round(at[key] * at["accuracy:images"] / 100), at["accuracy:images"])
        for i, bound in enumerate(bounds):
            yield at.same(f"{key.replace('percent', 'ci95_percent')}.{i}", ("Wilson's bound", bound), slack=1e-6)


@rule("drop", "a check's drop is its expected figure minus the measured one, which is that of the file")
def _(at: Evidence) -> Outcomes:
    for i, row in enumerate(at["accuracy:checks"]):
        k, check = row["metric"].partition("@")[2], f"accuracy:checks.{i}"
        yield at.same(f"{check}.percent", TOPS[0][int(k) - 1] if k else AGREEMENT)
        yield at.same(f"{check}.drop_points", ("expected - measured", row["expected_percent"] - row["percent"]), slack=1e-9)
    yield at.same("accuracy:drop_points", "accuracy:checks.0.drop_points")


@rule("verdict", "each check follows from its drop and limit, the verdict from the worst check")
def _(at: Evidence) -> Outcomes:
    for i, row in enumerate(at["accuracy:checks"]):
        bounds = [row[f"drop_at_{side}_points"] for side in ("least", "most")]
        follows = verdict.decide(row["drop_points"], None if None in bounds else bounds, row["max_drop_points"])
        yield at.same(f"accuracy:checks.{i}.verdict", ("what its drop and limit say", follows))
    worst = verdict.worst(at["accuracy:checks"])
    yield at.same("accuracy:verdict", ("what its checks say", "inconclusive" if at.known("accuracy:cause") else worst))


@rule("published figure", "expected figures and their source are those of params/expected.yaml, or the reference's own")
def _(at: Evidence) -> Outcomes:
    own = {"source": "reference/logits.npy", "top1_percent": at[TOPS[1][0]], "top5_percent": at[TOPS[1][4]]}
    row = expected_row(at.run) or own
    for key in own:
        place, stated = at.named(f"accuracy:expected.{key}")
        yield at.same((f"that of `expected: {at.run.spec.expected}`", row[key]), (place, stated or "missing"))


@rule("result.json", "result.json prints the figures of accuracy.json")
def _(at: Evidence) -> Outcomes:
    for key, text in ((row["key"], row["value"].rstrip("%")) for row in at["result:value"]):
        top = re.match(r"Top(\d) accuracy", key)
        stated = TOPS[0][int(top[1]) - 1] if top else f"accuracy:{key.removeprefix('Number of ')}"
        yield at.same((f"result.json {key}", float(text)), stated, slack=0.00501)


@rule("classes", "images and hits of the classes and of the confusion matrix sum to those of the run")
def _(at: Evidence) -> Outcomes:
    rows, counts = at["accuracy:per_class"], at.named("accuracy:confusion")[1] or []
    hits = ("hits of Acc@1", at[TOPS[0][0]] * at["accuracy:images"] / 100)
    yield at.same("accuracy:images", ("sum of per_class", sum(row["images"] for row in rows)))
    yield at.same(hits, ("sum of per_class", sum(row["images"] * row["top1_percent"] / 100 for row in rows)), slack=1e-6)
    if counts:
        yield at.same("accuracy:images", ("sum of confusion", sum(map(sum, counts))))
        yield at.same(hits, ("diagonal of confusion", sum(row[i] for i, row in enumerate(counts))), slack=1e-6)


@rule("images", "list, arrays, measurement and scores are of as many images and classes")
def _(at: Evidence) -> Outcomes:
    stated = [f"{name}:images" for name in ("preprocess", "agreement", "accuracy", "infer", "perf")]
    listed = ("rows of index.csv", len(at.csv("index")))
    yield at.same(listed, *stated[: 3 if at.known("infer:imported_from") else 5])  # a tool's may be of other images
    for name in ("logits", "reference"):
        if not at.run.file(name).exists():  # only rates were imported
            continue
        rows, columns = np.load(at.run.file(name), mmap_mode="r").shape
        yield at.same(listed, (f"rows of {name}", rows))
        yield at.same("accuracy:classes", (f"columns of {name}", columns))


@rule("batch size", "folder, graph, command of the conversion, files and rows of latency.csv are of one batch size")
def _(at: Evidence) -> Outcomes:
    command = re.search(r"--input_shape=[^: ]+:(\d+),", at.named("convert:command_line")[1] or "")
    stated = [f"{name}:batch_size" for name in ("optimize", "convert", "infer", "accuracy", "perf")]
    yield at.same((f"folder bs{at.size}", at.size), "optimize:input_shape.0", "optimize:output_shape.0", *stated)
    yield at.same((f"folder bs{at.size}", at.size), ("--input_shape of 03", command and int(command[1])))
    if len(sizes := at.csv("latency")["images"]) > 1:
        yield at.same((f"folder bs{at.size}", at.size), ("largest batch of latency.csv", int(sizes.max())))


@rule("e2e ≤ inference", "end to end is no faster than the model, nor shorter than what it waited for")
def _(at: Evidence) -> Outcomes:
    yield at.ascending("infer:stages.e2e.images_per_s", "infer:stages.inference.images_per_s")
    spans = at.csv("latency")[["wait_ms", "inference_ms", "postprocess_ms"]]
    spent = ("seconds of waiting, model and postprocess", float(spans.sum().sum()) / 1000)
    yield at.ascending(spent, "infer:stages.e2e.seconds", slack=spans.size * CSV_S)


@rule("seconds", "seconds of the stages are the sums of latency.csv and of the shards, images/s x seconds the images")
def _(at: Evidence) -> Outcomes:
    wall = sum(row["seconds"] for row in at["infer:shards"])  # a vendor's tool, without any, has clocks of its own
    for name in benchmark.ROWS:
        spans, stage = at.csv("latency").get(f"{name.removeprefix('data ')}_ms", []), f"infer:stages.{name}"
        seconds = wall if name == "e2e" else float(sum(spans)) / 1000
        yield at.same(f"{stage}.seconds", (f"sum for {name}", seconds), slack=len(spans) * CSV_S)
        yield at.same("infer:images", (f"images/s x s of {name}", at[f"{stage}.images_per_s"] * at[f"{stage}.seconds"]))


@rule("batch x batches/s", "images/s is batch size x batches/s, of the calls in 05 and of the model alone")
def _(at: Evidence) -> Outcomes:
    yield at.same("infer:interface_images_per_s", "perf:images_per_s")
    if at.known("infer:shards"):
        rows = at.csv("latency")
        full = rows[rows["images"] == at.size] if len(rows) > 1 else rows
        seconds = float(full["interface_ms"].sum()) / 1000
        rate = ("images / seconds of full batches", float(full["images"].sum()) / seconds)
        yield at.same("infer:interface_images_per_s", rate, part=len(full) * CSV_S / seconds)
    yield at.same("perf:pure.images_per_s", ("batch size x batches/s", at.size * 1000 / at["perf:pure.latency_ms.p50"]))


@rule("percentiles", "mean, p50 ≤ p90 ≤ p99 and n are those of latency.csv")
def _(at: Evidence) -> Outcomes:
    yield from (at.ascending(*names) for names in PERCENTILES)
    for name, value in latency.latency_ms(at.csv("latency")["latency_ms"]).items():
        yield at.same(f"infer:latency_ms.{name}", (f"{name} of latency.csv", value), slack=1e-6)


@rule("n", "every percentile has the number of its samples, a p99 at least a hundred")
def _(at: Evidence) -> Outcomes:
    for name in filter(at.known, itertools.chain(*PERCENTILES)):
        place, count = at.named(f"{name[:-3]}n")
        least = latency.P99_SAMPLES if name.endswith("p99") else 1
        yield at.ascending((f"samples that {name} needs", least), (place, count or 0))


@rule("07 quotes 05", "perf.json repeats the figures of infer.json")
def _(at: Evidence) -> Outcomes:
    return [at.same(f"infer:{key}", f"perf:{key}") for key in QUOTED]


@rule("operators", "shares of the families sum to 100; they and their time are those of profile.csv")
def _(at: Evidence) -> Outcomes:
    rows, families = at.csv("profile"), at["perf:families"]
    total_us = float(rows["total_us"].sum())
    yield at.same(("all", 100.0), ("sum of the families", sum(row["share_percent"] for row in families.values())), slack=1e-3)
    for name, own in rows.groupby("family"):
        shares = float(own["share_percent"].sum()), 100 * float(own["total_us"].sum()) / total_us
        of_file = zip(("its rows of profile.csv", "its total_us there"), shares, strict=True)
        yield at.same(f"perf:families.{name}.share_percent", *of_file, slack=1e-3)
    batch_ms = total_us / at["perf:profiled_batches"] / 1000
    yield at.same("perf:operators_ms", ("total_us of profile.csv / batches", batch_ms), part=PRINTED)


@rule("utilisation", "utilisation is images/s x FLOP / peak, at most 100 % of a stated one; FLOP are the graph's")
def _(at: Evidence) -> Outcomes:
    yield at.same("optimize:flops_per_image", "perf:flops_per_image")
    rate = at.named("perf:pure.images_per_s")[1] or at["perf:images_per_s"]
    used = ("images/s x FLOP / peak", 100 * rate * at["perf:flops_per_image"] / at["perf:peak_flops_per_s"])
    yield at.same("perf:utilisation_percent", used)
    if "spec" in at["perf:peak_source"]:  # a peak measured on a busy machine may be passed
        yield at.ascending("perf:utilisation_percent", ("all", 100))


@rule("device", "the device that is named was measured in 05 and 07, and is the chip that the OM was made for")
def _(at: Evidence) -> Outcomes:
    device, soc = at["infer:runtime.device"], at.named("convert:soc_version")[1]
    yield at.same("infer:runtime.device", "perf:runtime.device", "perf:device")
    yield at.same("infer:runtime.hardware", "perf:runtime.hardware", *(["infer:machine.cpu"] if device == "CPU" else []))
    if soc and at.run.spec.backend_row.needs_om:
        yield at.same("convert:soc_version", ("the chip measured", soc if soc in device.split() else device))


@rule("precision", "runtime and precision that are named were asked for and used, the version is that of the record")
def _(at: Evidence) -> Outcomes:
    used, spec = at.named("infer:runtime.precision_used")[1], at.run.spec
    yield at.same("infer:runtime.precision", "perf:precision", ("used", {"f32": "fp32", "f16": "fp16"}.get(used, used)))
    version = records.read_record(at.run, "infer").get("packages", {}).get(spec.backend_row.package)
    if not at.known("infer:imported_from"):  # that was not asked for
        yield at.same(("backend of the spec", spec.backend), "infer:runtime.backend", "perf:runtime.backend")
        yield at.same(("precision of the spec", spec.precision_text), "infer:runtime.precision")
        yield at.same("infer:runtime.version", "perf:runtime.version")
        plain = [one and one.partition("+")[0] for one in (at["infer:runtime.version"], version)]  # torch names its build
        yield at.same(("version that is named", plain[0]), ("version in the record", plain[1]))


@rule("pages", "tables of the published pages print what accuracy.json says")
def _(at: Evidence) -> Outcomes:
    stated = {f"Acc@{k}": f"{at[key]:.2f}" for k, key in enumerate(TOPS[0], 1)} | {"verdict": at["accuracy:verdict"]}
    for record, page in ((f"06_accuracy_bs{at.size}", f"bs{at.size}/06_accuracy.html"), ("report", "index.html")):
        made = (at.run.folder / "meta" / f"page_{record}.json").exists()  # without its record a page is being made
        text = (at.run.folder / page).read_text(encoding="utf-8") if made else ""
        for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
            rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
            heading, *below = [
                [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.split("</t[dh]>", row)[:-1]] for row in rows
            ]
            for printed in (dict(zip(heading, cells, strict=False)) for cells in below):
                if (
                    printed.get("batch size") == str(at.size) and printed.get("Acc@1", "–") != "–"
                ):  # or it says why there is none
                    yield from (at.same((f"accuracy.json {key}", stated[key]), (page, printed.get(key))) for key in stated)


@rule("lineage", "every file has a record, is as it was made, and was made from the files that lie here")
def _(at: Evidence) -> Outcomes:
    for stage, run in all_stages(at.run):
        why = records.problem(run, stage, strict=False) if run.size == at.size else None
        left = at.known("infer:imported_from") and not records.read_record(run, stage)  # its records were dropped by the import
        yield f"{stage} of bs{at.size}: {why}" if why and why != "does not exist yet" and not left else ""


def check(run: Run) -> list[Row]:
    """Every rule on every batch size of a run; what cannot be computed breaks its rule. Makes nothing, raises nothing."""
    each = [Evidence(at) for at in run.at_each()]
    return [judged(name, statement, looks, each) for name, (statement, looks) in RULES.items()]


def judged(name: str, statement: str, looks: Callable[[Any], Outcomes], each: Iterable[Any]) -> Row:
    """The row of a rule that looks at some evidence, one after the other."""
    outcomes, reason = list[str](), ""
    for evidence in each:
        try:
            outcomes += [outcome for outcome in looks(evidence) if outcome is not None]
        except (_UnknownError, SpecError) as err:
            reason = reason or str(err)
        except (DeitError, OSError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as err:
            outcomes.append(f"cannot be computed ({type(err).__name__}: {one_line(err)})")
    broken = "; ".join(dict.fromkeys(filter(None, outcomes)))
    return Row(name, statement, BROKEN if broken else HOLDS if outcomes else NOT_APPLICABLE, broken or reason)


def banner(rows: list[Row]) -> Stack:
    """Which rules are broken, where some are."""
    broken = [row.rule for row in rows if row.outcome == BROKEN]
    text = f"Figures of this run contradict each other: {', '.join(broken)}."
    return Stack([Banner("fail", f"{len(broken)} of {len(rows)} rules are broken.", text)] if broken else [])


def table(rows: list[Row]) -> Table:
    """What is broken, with both values; then how many rules hold, and how many ask for what this run does not have."""
    shown = [[row.rule, row.statement, row.detail] for row in rows if row.outcome == BROKEN]
    alarm = frozenset(range(len(shown)))
    for outcome, verb in ((HOLDS, "hold"), (NOT_APPLICABLE, "do not apply")):
        names = [row.rule for row in rows if row.outcome == outcome]
        shown += [[f"{len(names)} rules {verb}", ", ".join(names), ""]] if names else []
    return Table(
        f"{len(rows)} rules on the files of this run", "rule | what must hold | what contradicts it", shown, alarm=alarm
    )
