"""The self-audit: a sound run breaks no rule, and for every rule a doctored one breaks exactly that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import PUBLISHED
from runs import copy_of

from deit_helpers import files, imported
from deit_helpers.audit import rules
from deit_helpers.report import accuracy as page
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.run.hashing import sha256
from deit_helpers.run.manifest import all_stages

Doctoring = Callable[[Run], None]


@pytest.fixture(scope="module")
def sound(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the finished run, opened at 8, with the table of accuracies on the pages that show it."""
    run = copy_of(finished, tmp_path_factory.mktemp("sound")).at(8)
    for at in run.at_each():
        publish(at)
    return run


def publish(at: Run) -> None:
    for record, path in ((f"06_accuracy_bs{at.size}", f"bs{at.size}/06_accuracy.html"), ("report", "index.html")):
        (at.folder / path).write_text(page.accuracy(at)._repr_html_())
        (at.folder / "meta" / f"page_{record}.json").write_text("{}")


def reseal(run: Run) -> None:
    """Make the records those of the files that lie here, as a forger would: only figures contradict each other."""
    for stage, at in all_stages(run):
        if not (record := records.read_record(at, stage)):  # the demo's
            continue
        for name, facts in record["outputs"].items():
            stat = (run.folder / name).stat()
            facts |= {"sha256": sha256(run.folder / name), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        files.write_json(records.record_path(at, stage), record | {"inputs": records.key(at, stage)["inputs"]})


def edit(run: Run, file: str, **values: Any) -> None:
    """Write values into a JSON file, by their keys joined with `__`; a function makes a value of the one that was there."""
    content = run.read(file)
    for keys, value in values.items():
        *path, last = [int(key) if key.isdigit() else key for key in keys.split("__")]
        place: Any = content
        for key in path:
            place = place[key]
        place[last] = value(place[last]) if callable(value) else value
    files.write_json(run.file(file), content)


def edit_both(run: Run, **values: Any) -> None:
    """The same in what 05 wrote and what 07 repeats."""
    for file in ("infer", "perf"):
        edit(run, file, **values)


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def outcomes(run: Run) -> dict[str, str]:
    return {row.rule: row.detail for row in rules.check(run) if row.outcome == rules.BROKEN}


def of_every_size(file: str, **values: Any) -> Doctoring:
    return lambda run: [edit(at, file, **values) for at in run.at_each()] and None


def of_8(file: str, **values: Any) -> Doctoring:
    return lambda run: edit(run, file, **values)


def with_another_verdict(run: Run) -> None:
    edit(run, "accuracy", verdict="pass")
    reseal(run)
    publish(run)


def with_an_agreement_of_no_images(run: Run) -> None:
    edit(run, "agreement", top1_agreement_percent=99.5)
    edit(run, "accuracy", reference__agreement_percent=99.5, checks__2__percent=99.5, checks__2__drop_points=0.5)


def with_rates_of_batches(run: Run) -> None:
    """The rate of the model alone is that of its batches, and all that is computed of it."""
    edit(run, "perf", pure__images_per_s=lambda rate: rate / 8, utilisation_percent=lambda percent: percent / 8)


def with_a_fast_end(run: Run) -> None:
    """The wall is shorter than what the model took, in every file that says so."""
    wall_s = 0.9 * run.read("infer")["stages"][2]["seconds"]
    rate = 13 / wall_s
    edit_both(run, stages__4__seconds=wall_s, stages__4__images_per_s=rate, e2e_images_per_s=rate)
    edit(run, "infer", shards__0__seconds=wall_s)


def with_another_reading(run: Run) -> None:
    old = run.read("infer")["stages"][0]["images_per_s"]
    edit_both(run, stages__0__seconds=lambda s: 2 * s, stages__0__images_per_s=old / 2)


def with_a_shorter_reference(run: Run) -> None:
    np.save(run.file("reference"), np.load(run.file("reference"))[:-1])


def with_another_median(run: Run) -> None:
    edit_both(run, latency_ms__p50=0.1)


def with_another_version(run: Run) -> None:
    edit_both(run, runtime__version="1.0")


def with_swapped_shares(run: Run) -> None:
    shares = run.read("perf")["families"]
    edit(run, "perf", families__Gelu=shares["Conv2D"], families__Conv2D=shares["Gelu"])


def with_a_changed_cell(run: Run) -> None:
    edit_text(run.folder / "index.html", "38.46", "83.46")


def with_one_byte_changed(run: Run) -> None:
    content = run.file("static_onnx").read_bytes()
    run.file("static_onnx").write_bytes(content[:-1] + b"x")


NOT_RESEALED = ("lineage",)
DOCTORED: list[tuple[str, Doctoring, str]] = [
    ("order of Acc@k", of_every_size("accuracy", reference__top4_percent=1200 / 13), "top3_percent is 100, above"),
    ("whole images", of_every_size("accuracy", reference__top2_percent=61.6), "is 8.008 but the nearest whole number is 8"),
    ("whole images", with_an_agreement_of_no_images, "is 12.935 but the nearest whole number is 13"),
    ("interval", of_8("accuracy", top1_ci95_percent__0=30.0), "top1_ci95_percent.0 is 30 but Wilson's bound is 17.7"),
    ("drop", of_8("accuracy", checks__0__drop_points=0.5, drop_points=0.5), "is 0.5 but expected - measured is 0"),
    ("verdict", with_another_verdict, "verdict is pass but what its checks say is inconclusive"),
    ("verdict", of_8("accuracy", checks__0__verdict="pass"), "is pass but what its drop and limit say is inconclusive"),
    ("published figure", of_8("accuracy", expected__source=""), "accuracy.json expected.source is missing"),
    (
        "result.json",
        of_8("result", value__2__value="38.47%"),
        "result.json Top1 accuracy is 38.47 but bs8",
    ),
    ("classes", of_8("accuracy", confusion__0__1=3), "images is 13 but sum of confusion is 14"),
    ("classes", of_8("accuracy", per_class__2__top1_percent=100.0), "hits of Acc@1 is 5 but sum of per_class is 6"),
    ("images", with_a_shorter_reference, "rows of index.csv is 13 but rows of reference is 12"),
    ("images", of_8("preprocess", images=12), "rows of index.csv is 13 but dataset/preprocess.json images is 12"),
    ("batch size", of_8("optimize", input_shape__0=4), "folder bs8 is 8 but bs8/optimize.json input_shape.0 is 4"),
    ("e2e ≤ inference", with_a_fast_end, "e2e.images_per_s is"),
    ("seconds", with_another_reading, "but sum for data read is"),
    ("batch x batches/s", with_rates_of_batches, "but batch size x batches/s is"),
    ("percentiles", with_another_median, "latency_ms.p50 is 0.1 but p50 of latency.csv is"),
    ("percentiles", of_8("perf", pure__latency_ms__p90=0.5), "above bs8/perf.json pure.latency_ms.p90 is 0.5"),
    ("n", of_8("perf", pure__latency_ms__n=None), "samples that perf:pure.latency_ms.p50 needs is 1, above"),
    ("07 quotes 05", of_8("perf", e2e_efficiency=0.99), "but bs8/perf.json e2e_efficiency is 0.99"),
    ("operators", with_swapped_shares, "perf.json families.Conv2D.share_percent is"),
    ("utilisation", of_8("perf", utilisation_percent=99.0), "utilisation_percent is 99 but images/s x FLOP / peak"),
    ("device", of_8("perf", device="Ascend310P3 device 0"), "device is CPU but bs8/perf.json device is Ascend310P3"),
    ("precision", with_another_version, "version that is named is 1.0 but version in the record is"),
    ("pages", with_a_changed_cell, "accuracy.json Acc@1 is 38.46 but index.html is 83.46"),
    ("lineage", with_one_byte_changed, "optimize of bs8: deit_bs8.onnx was changed after it was made"),
]


def test_a_sound_run_breaks_nothing_and_every_rule_looks_at_it(sound: Run) -> None:
    assert [row for row in rules.check(sound) if row.outcome != rules.HOLDS] == []


def test_every_rule_has_a_doctored_run() -> None:
    assert {rule for rule, *_ in DOCTORED} == rules.RULES.keys()
    assert len(rules.RULES) >= 20


@pytest.mark.parametrize(("rule", "doctor", "said"), DOCTORED, ids=[f"{i} {row[0]}" for i, row in enumerate(DOCTORED)])
def test_a_doctored_run_breaks_exactly_its_rule(sound: Run, tmp_path: Path, rule: str, doctor: Doctoring, said: str) -> None:
    run = copy_of(sound, tmp_path)
    doctor(run)
    if rule not in NOT_RESEALED:
        reseal(run)
    broken = outcomes(run)
    assert list(broken) == [rule], broken
    assert said in broken[rule]


def test_the_list_is_short_and_what_is_broken_stands_first_in_it(sound: Run, tmp_path: Path) -> None:
    rows = rules.check(sound)
    assert rules.banner(rows).items == []
    assert [row[0] for row in rules.table(rows).rows] == [f"{len(rows)} rules hold"]
    run = copy_of(sound, tmp_path)
    edit(run, "accuracy", verdict="<b>pass</b>")
    reseal(run)
    rows = rules.check(run)
    listed = rules.table(rows)
    assert [row[0] for row in listed.rows] == ["verdict", "pages", f"{len(rows) - 2} rules hold"]
    assert listed.alarm == {0, 1}
    assert "&lt;b&gt;pass&lt;/b&gt; but what its checks say" in listed._repr_html_()
    assert rules.banner(rows).items[0].title == f"2 of {len(rows)} rules are broken."


def test_what_cannot_be_computed_breaks_its_rule_and_what_is_missing_asks_nothing(sound: Run, tmp_path: Path) -> None:
    run = copy_of(sound, tmp_path)
    edit(run, "result", value__0__value="many")
    reseal(run)
    assert outcomes(run) == {"result.json": "cannot be computed (ValueError: could not convert string to float: 'many')"}
    for at in run.at_each():
        for file in ("perf", "profile", "convert"):
            at.file(file).unlink()
        records.forget(at, "perf")
        records.forget(at, "convert")
    assert list(outcomes(run)) == ["result.json"]
    missing = {row.rule: row.detail for row in rules.check(run) if row.outcome == rules.NOT_APPLICABLE}
    assert missing["operators"] == "no rows in bs1/profile.csv"
    assert missing["07 quotes 05"] == ""


def test_rates_imported_from_elsewhere_break_no_rule(sound: Run, tmp_path: Path) -> None:
    run, source = copy_of(sound, tmp_path), tmp_path / "perf.txt"
    source.write_text(PUBLISHED[1][1])
    imported.import_results(run, source, None, None, 4, "Ascend 310")
    publish(run)
    assert outcomes(run) == {}


def test_the_report_shows_that_its_rules_hold(finished_project: Path) -> None:
    text = (finished_project / "reports/mini/index.html").read_text()
    assert f"{len(rules.RULES)} rules hold" in text
    assert "rules are broken" not in text
