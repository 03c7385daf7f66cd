"""Two runs against each other: what passes, what fails, what cannot be told, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from runs import REPOSITORY, copy_of, run_tool
from scipy.stats import binomtest

from deit_helpers import open_run, pipeline
from deit_helpers.__main__ import main
from deit_helpers.compare import page
from deit_helpers.compare.judge import compare, folder_of, opened, write
from deit_helpers.data.sources import write_index
from deit_helpers.errors import SpecError
from deit_helpers.files import write_json
from deit_helpers.metrics.latency import write_latency
from deit_helpers.report import index
from deit_helpers.run import records
from deit_helpers.run.folder import Run

IMAGES = 400
# ms of the 37 full batches of a run of the demo (DeiT-small, bs8, ONNX Runtime on two cores)
RECORDED_MS = np.array([430.6, 430.3, 419.9, 429.2, 430.5, 438.9, 425.3, 427.4, 433.1, 430.0, 441.2, 428.8, 424.0, 422.7, 431.9,
                        443.5, 429.7, 426.1, 434.8, 430.9, 427.9, 425.7, 436.2, 442.1, 431.4, 428.2, 424.9, 433.8, 429.1, 427.0,
                        440.3, 432.5, 430.2, 426.6, 435.5, 428.4, 431.1])  # fmt: skip
Make = Callable[..., Run]


def again(run: Run, stage: str, **contents: dict[str, Any]) -> None:
    """Record a stage's files anew, after keys of its JSON files were changed: as if it had made them so."""
    records.forget(run, stage)
    for name, keys in contents.items():
        write_json(run.file(name), {**run.read(name), **keys})
    records.ensure(run, stage, lambda: None)


def answer(run: Run, logits: np.ndarray, labels: np.ndarray, names: list[str] | None = None) -> None:
    """Let the run have these images, of 8 px, and give these answers."""
    names = names or [f"{i}.jpg" for i in range(len(labels))]
    write_index(run.file("index"), dict(zip(names, labels.tolist(), strict=True)))
    np.save(run.file("images"), np.zeros((len(labels), 8, 8, 3), np.uint8))
    again(run, "preprocess", preprocess={"images": len(labels)})
    np.save(run.file("logits"), logits.astype(np.float32))
    again(run, "infer")


def take(run: Run, ms_05: np.ndarray, slower_07: float = 1.0, slower_product: float = 1.0, **infer: Any) -> None:
    """Let the run have taken so many ms for its batches in 05; so much longer than recorded in 07."""
    write_latency(run.file("latency"), [run.size] * len(ms_05), {"interface": ms_05, "latency": ms_05})
    again(run, "infer", infer={"disturbed": "", **infer})  # whatever it was beside when the fixture was made
    pure = {"images_per_s": 19.2 / slower_07, "images_per_s_ci95": [19.0 / slower_07, 19.4 / slower_07], "settled": True}
    again(
        run, "perf", perf={"disturbed": "", "pure": pure, "peak_flops_per_s": 2e11 / slower_product, "peak_source": "measured"}
    )


@pytest.fixture(scope="module")
def make(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes copies of a run that always answers right on IMAGES images, of batch size 4 alone."""
    template = copy_of(finished, tmp_path_factory.mktemp("template"), batch_sizes=[4])
    template.save_spec()
    labels = np.arange(IMAGES) % 3
    answer(template, 5 * np.eye(3)[labels], labels)
    take(template, RECORDED_MS)

    def copy(**keys: Any) -> Run:
        run = copy_of(template, tmp_path_factory.mktemp("copy"), **keys)
        run.save_spec()
        return run

    return copy


def lose(run: Run, lost: int, gained: int = 0, count: int = IMAGES) -> None:
    """Let the run answer wrong on the first images and on no others; of base, which has `gained` images wrong, see there."""
    labels = np.arange(count) % 3
    answers = labels.copy()
    answers[gained : gained + lost] = (labels[gained : gained + lost] + 1) % 3
    answer(run, 5.1 * np.eye(3)[answers], labels)


def check(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["checks"] if row["name"] == name)


def test_answers_that_come_together_are_timed_together(make: Make) -> None:
    one, two = make(), make()
    take(one, np.full(36, 430.0))
    take(two, np.tile([0.0, 860.0], 18), in_flight=[2])
    ratio = compare(one, two)["batch_sizes"][0]["throughput"]["ratios"]["05"]
    assert ratio == pytest.approx([1, 1, 1])


def test_a_run_passes_against_itself_and_against_its_copy(make: Make) -> None:
    run = make()
    for other in (run, make()):
        facts = compare(run, other)
        assert [row["verdict"] for row in facts["checks"]] == ["pass", "pass"]
        assert facts["line"].startswith(
            "pass: Acc@1 of bs4 lost at most 0.00 points (on 400 images the logits are the same bit"
        )
        assert facts["batch_sizes"][0]["accuracy"]["changed"] == 0
    assert facts["differences"] == {"spec": {}, "package": {}, "machine": {}}


def test_a_planted_drop_of_three_points_fails(make: Make) -> None:
    base, new = make(), make()
    lose(new, 12)
    facts = compare(base, new)
    accuracy = check(facts, "Acc@1 of bs4")
    exact = binomtest(12, IMAGES).proportion_ci(0.9, "exact")  # nothing gained: one proportion, 5 % on either side
    assert accuracy["at_least"] == pytest.approx(100 * exact.low, abs=0.01)
    assert accuracy["at_most"] == pytest.approx(100 * exact.high, abs=0.01)
    assert (facts["verdict"], check(facts, "throughput of bs4")["verdict"]) == ("fail", "pass")
    assert facts["line"] == f"fail: Acc@1 of bs4 lost at least {100 * exact.low:.2f} points (12 images lost, 0 gained), limit 1"
    assert accuracy["lost"] == [f"{i}.jpg" for i in range(12)]
    assert compare(base, new, max_drop=5)["verdict"] == "pass"
    assert compare(new, base)["verdict"] == "pass"  # a gain of three


def test_a_small_drop_on_few_images_is_inconclusive_and_says_how_many_it_takes(make: Make) -> None:
    base, new = make(), make()
    lose(new, 2)
    facts = compare(base, new)
    assert facts["verdict"] == "inconclusive"
    assert "images to settle it: " in facts["line"]
    for run, lost in ((base, 0), (new, 2)):
        lose(run, lost, count=4000)
    assert compare(base, new)["verdict"] == "pass"


def test_lost_gained_and_changed_images_are_told_apart(make: Make) -> None:
    base, new = make(), make()
    lose(base, 3)  # images 0, 1, 2
    lose(new, 4, gained=2)  # images 2, 3, 4, 5: 0 and 1 are gained, 2 is wrong in both
    accuracy = compare(base, new)["batch_sizes"][0]["accuracy"]
    assert (accuracy["only_reference_right"], accuracy["only_this_right"], accuracy["changed"]) == (3, 2, 5)
    assert [row["image"] for row in accuracy["changed_images"]] == ["3.jpg", "4.jpg", "5.jpg", "0.jpg", "1.jpg"]
    assert accuracy["changed_images"][0] == {"index": 3, "image": "3.jpg", "label": 0, "base_answer": 0, "answer": 1}


def test_a_planted_slowdown_of_twenty_percent_fails(make: Make) -> None:
    base, new = make(), make()
    take(new, RECORDED_MS / 0.8, slower_07=1 / 0.8)
    facts = compare(base, new)
    speed = check(facts, "throughput of bs4")
    assert facts["line"].startswith("fail: throughput of bs4 lost at least 1")
    assert speed["at_least"] < 20 < speed["at_most"]
    assert facts["batch_sizes"][0]["throughput"]["ratios"]["05"][0] == pytest.approx(0.8)
    assert compare(base, new, max_slowdown=30)["verdict"] == "pass"
    assert compare(base, new, max_slowdown=20)["verdict"] == "inconclusive"
    assert compare(new, base)["verdict"] == "pass"


@pytest.mark.parametrize(
    ("slower_07", "slower_product"),
    [(1.0, 1.0), (1.25, 1.25)],
    ids=["in 05 alone", "a matrix product as well"],
)
def test_what_only_some_measurements_show_is_no_slowdown_of_the_port(
    make: Make, slower_07: float, slower_product: float
) -> None:
    base, new = make(), make()
    take(new, RECORDED_MS * 1.25, slower_07, slower_product)
    assert compare(base, new)["verdict"] == "inconclusive"


def test_the_product_does_not_count_where_settings_or_runtime_differ(make: Make) -> None:
    base, new = make(), make(runtime={"streams": 1, "threads": 1})
    take(new, RECORDED_MS * 1.25, 1.25, 1.25)
    assert compare(base, new)["verdict"] == "fail"
    runtime = {**base.read("perf")["runtime"], "version": "0.0"}
    new = make()
    take(new, RECORDED_MS * 1.25, 1.25, 1.25, runtime=runtime)
    assert compare(base, new)["verdict"] == "fail"


def test_ten_noisy_repeats_never_fail(make: Make) -> None:
    """In every run the machine has a level of its own within 10 % of the recorded one, and drifts while 05 lasts."""
    generator, verdicts, pair = np.random.default_rng(0), [], (make(), make())
    for _ in range(10):
        for run in pair:
            level = generator.uniform(0.9, 1.1)
            drift = 1 + generator.uniform(-0.05, 0.05) * np.sin(np.linspace(0, generator.uniform(1, 6), 120))
            take(run, level * drift * generator.choice(RECORDED_MS, 120), level, level)
        verdicts.append(check(compare(*pair), "throughput of bs4")["verdict"])
    assert "fail" not in verdicts


def test_a_subset_is_not_comparable(make: Make) -> None:
    base, new = make(), make()
    lose(new, 0, count=300)
    facts = compare(base, new)
    reason = "different images: base has 400, new has 300, 300 names are in both"
    assert (facts["verdict"], facts["not_comparable"], facts["batch_sizes"]) == ("inconclusive", reason, [])
    assert facts["line"] == f"inconclusive: not comparable: {reason}"


def _relabel(run: Run) -> None:
    labels = np.arange(IMAGES) % 3
    answer(run, 5 * np.eye(3)[labels], (labels + (np.arange(IMAGES) == 7)) % 3)


def _widen(run: Run) -> None:
    answer(run, 5 * np.eye(4)[np.arange(IMAGES) % 3], np.arange(IMAGES) % 3)


def _repaint(run: Run) -> None:
    again(run, "preprocess", preprocess={"fingerprint": "of other pixels"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_relabel, "different labels: those of 1 of 400 images, the first is 7.jpg"),
        (_widen, "different classes: base has 3, new has 4"),
        (_repaint, "different images under the same names"),
        (lambda run: records.forget(run, "infer"), "there is no record of this run making it; run notebooks/05_infer.ipynb"),
    ],
)
def test_what_is_not_comparable_says_why(make: Make, change: Callable[[Run], None], reason: str) -> None:
    base, new = make(), make()
    change(new)
    assert reason in compare(base, new)["line"]


def test_runs_without_a_common_batch_size_are_not_comparable(make: Make) -> None:
    base, new = make(), make(batch_sizes=[8])
    assert compare(base, new)["not_comparable"] == "no batch size in common: base has 4, new has 8"


def test_another_preprocessing_is_compared_and_listed(make: Make) -> None:
    base, new = make(), make(preprocess="timm")
    recipe = new.spec.recipe.model_dump(mode="json")
    again(new, "preprocess", preprocess={"fingerprint": "of other pixels", "recipe": recipe})
    for stage in ("export", "optimize", "infer", "perf"):
        again(new, stage)
    facts = compare(base, new)
    assert (facts["not_comparable"], facts["verdict"]) == (None, "pass")
    assert facts["differences"]["spec"] == {"preprocess": ["deit", "timm"]}


def test_rates_of_another_machine_are_not_compared_but_answers_are(make: Make) -> None:
    base, new = make(), make()
    take(new, RECORDED_MS * 2, machine={**new.read("infer")["machine"], "cpu": "other"})
    facts = compare(base, new)
    assert check(facts, "Acc@1 of bs4")["verdict"] == "pass"
    assert facts["verdict"] == "inconclusive"
    assert "throughput of bs4: not comparable, measured elsewhere or otherwise: cpu" in facts["line"]
    assert compare(base, new, max_slowdown=100)["verdict"] == "pass"


def test_rates_taken_beside_other_work_are_inconclusive(make: Make) -> None:
    base, new = make(), make()
    take(new, RECORDED_MS * 2, 2.0, disturbed="other processes took 37 % of the CPU")
    assert "inconclusive: throughput of bs4: new: in 05, other processes took 37 % of the CPU" in compare(base, new)["line"]
    take(new, RECORDED_MS * 2, 2.0, disturbed=None)
    again(new, "perf", perf={"pure": {**new.read("perf")["pure"], "settled": False}})
    assert "new: 07 ended before its median settled" in compare(base, new)["line"]


def test_figures_of_tools_that_give_a_mean_alone_are_not_one_measurement(make: Make) -> None:
    base, new = make(), make()
    for run, rate in ((base, 20.0), (new, 10.0)):
        take(run, np.array([]), interface_images_per_s=rate)
        again(run, "perf", perf={"pure": None})
    assert compare(base, new)["line"] == "inconclusive: throughput of bs4: too few batches for an interval"
    assert compare(base, base)["verdict"] == "pass"


def test_operators_are_in_ms_per_batch(make: Make) -> None:
    base, new = make(), make()
    new.file("profile").write_text(
        "family,op_type,name,calls,total_us,share_percent,backend\nSoftmaxV2,Softmax,s,2,5000,100,x\n"
    )
    again(new, "perf", perf={"profiled_batches": 2})
    rows = compare(base, new)["batch_sizes"][0]["operators"]
    softmax = [row for row in rows if row["family"] == "SoftmaxV2"]
    assert [(row["op_type"], row["ms"]) for row in softmax] == [(None, 2.5), ("Softmax", 2.5)]
    families = sum(row["base_ms"] for row in rows if row["op_type"] is None)
    assert families == pytest.approx(base.read("perf")["operators_ms"], rel=1e-3)


def test_the_test_report_counts_failures_and_skips(make: Make) -> None:
    base, new = make(), make()
    lose(new, 12)
    take(new, RECORDED_MS * 1.25)
    suite = ElementTree.fromstring(page.junit(compare(base, new)))
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {"tests": "2", "failures": "1", "skipped": "1"}
    accuracy, speed = suite.findall("testcase")
    assert (accuracy.get("name"), speed.get("name")) == ("Acc@1 of bs4", "throughput of bs4")
    failure, skipped = accuracy.find("failure"), speed.find("skipped")
    assert failure is not None
    assert skipped is not None
    assert "12 images lost" in str(failure.get("message"))
    assert str(failure.text).splitlines()[1] == "lost: 0.jpg"


def test_hostile_names_show_as_text(make: Make, tmp_path: Path) -> None:
    hostile = "<script>alert(1)<|`*_\n图像\x07"
    base = make()
    folder = base.folder.rename(tmp_path / hostile.replace("/", ""))
    base, new = opened(folder).at(4), make()
    names = [f"{hostile}{i}.jpg" for i in range(IMAGES)]
    labels = np.arange(IMAGES) % 3
    for run, wrong in ((base, 0), (new, 12)):
        answer(run, 5 * np.eye(3)[(labels + (np.arange(IMAGES) < wrong)) % 3], labels, names)
    facts = compare(base, new)
    write(folder_of(base, new), facts)
    comment = (folder_of(base, new) / "comment.md").read_text()
    shown = "&lt;script&gt;alert(1)&lt;\\|\\`\\*\\_ 图像\\\\x07"
    assert comment.count(shown) == 6  # the folder, five lost images
    assert "<script" not in comment
    assert "|---|---|---|" in comment
    suite = ElementTree.parse(folder_of(base, new) / "junit.xml").getroot()
    case = suite.find("testcase")
    assert case is not None
    assert str(case.get("classname")).startswith("<script>alert(1)<|`*_ 图像\\x07 against ")
    (banner,) = index.since(new).items
    assert banner.link.startswith("compare/%3Cscript%3Ealert%281%29%3C%7C%60%2A_%0A")
    html = page.page(facts, new)._repr_html_() + banner._repr_html_()
    assert "<script" not in html
    assert "<script>alert(1)<|`*_ 图像" in BeautifulSoup(html, "html.parser").text


def test_a_page_shows_no_more_images_than_fit_and_says_of_how_many(make: Make) -> None:
    base, new = make(), make()
    lose(new, 60)
    facts = compare(base, new)
    shown = page.changed_images(facts, new)
    assert isinstance(shown, page.Gallery)
    assert len(shown.labels) == page.MOST
    assert shown.caption.startswith("24 of 60 changed answers of 400 images, bs4")
    new.file("images").unlink()
    assert "the images are not here" in page.changed_images(facts, new)._repr_html_()


def test_bases_of_one_name_have_folders_of_their_own(make: Make, tmp_path: Path) -> None:
    first, second, new = make(), make(), make()
    assert first.folder.name == second.folder.name
    own = folder_of(first, new)
    assert own == new.folder / "compare" / first.folder.name
    write(own, compare(first, new))
    assert folder_of(first, new) == own
    assert folder_of(second, new) != own
    write(folder_of(second, new), compare(second, new))
    assert json.loads((own / "compare.json").read_text())["base"]["folder"] == str(first.folder)


def test_an_opened_run_is_compared_in_a_notebook_and_nothing_is_written(make: Make) -> None:
    base, new = make(), make()
    before = sorted(new.folder.rglob("*"))
    here = open_run(new.folder / "spec.yaml")
    assert here.compare(base)._repr_html_() == here.compare(base.folder)._repr_html_()
    assert "Pass." in here.compare(base)._repr_html_()
    assert sorted(new.folder.rglob("*")) == before


def test_the_command_publishes_a_page_that_the_report_links_and_exits_with_one(make: Make) -> None:
    base, new = make(), make()
    lose(new, 12)
    again(new, "perf")
    result = run_tool("deit_helpers", "compare", str(base.folder), str(new.folder), cwd=REPOSITORY)
    assert result.returncode == 1, result.stderr
    line, published = result.stdout.splitlines()
    assert line.startswith("fail: Acc@1 of bs4 lost at least 1.74 points")
    soup = BeautifulSoup(Path(published).read_text(), "html.parser")
    assert "Acc@1 of bs4 lost at least 1.74 points" in soup.find(class_="banner fail").text
    assert len(soup.select("figure.gallery li")) == 12
    assert {path.name for path in Path(published).parent.iterdir()} >= {"compare.json", "junit.xml", "comment.md"}
    (banner,) = index.since(new).items
    assert (banner.kind, banner.title, banner.link) == ("fail", f"Against {base.folder}:", new.relative(Path(published)))
    write(folder_of(base, base), compare(base, base))  # as the notebook does with its defaults
    assert index.since(base).items == []
    (Path(published).parent / "compare.json").write_text("{")
    assert index.since(new).items == []  # damaged: no reason to lose the report
    assert "../../index.html" in {a.get("href") for a in soup.find_all("a")}


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("inconclusive", 2)])
def test_the_exit_code_is_the_verdict(verdict: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"verdict": verdict, "line": f"{verdict}: x"}
    monkeypatch.setattr(pipeline, "compare", lambda *arguments, **limits: (Path("compare.html"), facts))
    assert CliRunner().invoke(main, ["compare", "a", "b"]).exit_code == code


def test_a_folder_that_holds_no_run_is_one_line(tmp_path: Path, make: Make) -> None:
    result = CliRunner().invoke(main, ["compare", str(tmp_path), str(make().folder)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"error: {tmp_path}: no run folder" in result.stderr
    with pytest.raises(SpecError, match="no run folder"):
        opened(tmp_path / "none")


def test_a_folder_is_found_from_the_notebooks_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("notebooks", "params", "reports"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    made = make().folder.rename(tmp_path / "project/reports/mini")
    monkeypatch.chdir(tmp_path / "project/notebooks")
    assert opened("reports/mini").folder == opened("../reports/mini").folder == made
