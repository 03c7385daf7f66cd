"""Scoring: top-k, intervals, paired test, verdict and the recipe's result file, on logits made by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_spec
from pipeline import finished, new_run

from deit_helpers import open_run
from deit_helpers.errors import ArtifactError, SpecError, VerdictError
from deit_helpers.metrics import classification, proportions
from deit_helpers.metrics.verdict import decide
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy

# The recipe's result.json, byte for byte (imagenet_acc_eval.py of ModelZoo's Deit_Small, 310P).
RECIPE_RESULT = (
    '{"title": "Overall statistical evaluation", "value": [{"key": "Number of images", "value": "50000"}, '
    '{"key": "Number of classes", "value": "1000"}, {"key": "Top1 accuracy", "value": "79.69%"}, '
    '{"key": "Top2 accuracy", "value": "89.22%"}, {"key": "Top3 accuracy", "value": "92.39%"}, '
    '{"key": "Top4 accuracy", "value": "93.98%"}, {"key": "Top5 accuracy", "value": "94.97%"}]}'
)
RECIPE_TOP = (79.69, 89.22, 92.39, 93.98, 94.97)


def logits_with_ranks(ranks: list[int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) in which the label of row i has exactly ranks[i] classes above it, and the labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, len(ranks))
    logits = np.empty((len(ranks), classes), np.float32)
    for row, label, rank in zip(logits, labels, ranks, strict=True):
        others = [c for c in range(classes) if c != label]
        row[[*others[:rank], label, *others[rank:]]] = -np.arange(classes)
    return logits, labels


Scored = Callable[..., Run]


@pytest.fixture
def scored(project: Path, monkeypatch: pytest.MonkeyPatch) -> Scored:
    """Put logits and labels in the place of stages 04 and 05 and score them; returns the run."""

    def score(logits: np.ndarray, labels: np.ndarray, reference: np.ndarray | None = None, **keys: object) -> Run:
        run = open_run(write_spec(project, **keys), 4)
        for name, array in (("logits", logits), ("reference", logits if reference is None else reference)):
            run.file(name).parent.mkdir(parents=True, exist_ok=True)
            np.save(run.file(name), array)
        run.file("index").parent.mkdir(exist_ok=True)
        with run.file("index").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "label"), *((f"{i:05d}.png", label) for i, label in enumerate(labels))])
        monkeypatch.setattr(records, "require", lambda *_: None)  # these files have no records
        accuracy.score(run)
        return run

    return score


def expect(project: Path, **row: object) -> None:
    """Write `params/expected.yaml` with one row named `published`."""
    path = project / "params" / "expected.yaml"
    path.parent.mkdir(exist_ok=True)
    base = {"name": "Published", "top5_percent": 0.0, "source": "a table"}
    path.write_text(yaml.safe_dump({"published": {**base, **row}}))


@pytest.mark.parametrize("k", classification.TOP)
@pytest.mark.parametrize("levels", [None, 3])  # 3: logits of only three values, so that nearly all of them tie
def test_top_k_counts_like_a_plain_loop(k: int, levels: int | None) -> None:
    generator = np.random.default_rng(k)
    logits = generator.standard_normal((200, 7)) if levels is None else generator.integers(0, levels, (200, 7)) * 1.0
    labels = generator.integers(0, 7, 200)
    hits = 0
    for row, label in zip(logits, labels, strict=True):
        best = sorted(range(7), key=lambda c: (-row[c], c))[:k]
        hits += label in best
    found = classification.percent_within(classification.label_ranks(logits, labels), k)
    assert found == pytest.approx(100 * hits / 200, abs=1e-12)
    if k == 1:
        assert found == 100 * np.mean(logits.argmax(axis=1) == labels)


def test_among_equal_logits_the_lower_class_ranks_first() -> None:
    logits = np.array([[1.0, 5.0, 5.0, 5.0]] * 4)
    assert classification.label_ranks(logits, np.arange(4)).tolist() == [3, 0, 1, 2]


def test_labels_shifted_by_one_are_scored_wrong() -> None:
    logits, labels = logits_with_ranks([0] * 50, 6)
    ranks = classification.label_ranks(logits, (labels + 1) % 6)
    assert classification.percent_within(ranks, 1) == 0


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 13), (13, 13), (39950, 50000)])
def test_interval_is_wilsons(hits: int, count: int) -> None:
    z, p = 1.959963984540054, hits / count
    centre, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    expected = [100 * (centre + sign * half) / (1 + z * z / count) for sign in (-1, 1)]
    assert proportions.wilson_percent(hits, count) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (0, 6, 2 / 64)]
)
def test_paired_test_is_mcnemars_exact_one(gained: int, lost: int, p_value: float) -> None:
    ranks = np.array([0] * gained + [1] * lost + [0, 0, 3])
    reference_ranks = np.array([2] * gained + [0] * lost + [0, 0, 1])
    found = proportions.paired(ranks, reference_ranks)
    assert (found["only_this_right"], found["only_reference_right"]) == (gained, lost)
    assert found["p_value"] == pytest.approx(p_value)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, table III, and Bentur 2009 in Fagerland, Lydersen and Laake
        ((36, 12, 2, 0), 5.69, 34.04),
        ((1, 1, 7, 12), -50.7, -2.6),
    ],
)
def test_the_paired_interval_is_newcombes(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert proportions.difference_interval(*counts) == pytest.approx([low, high], abs=0.05)


def test_the_paired_interval_holds_the_difference_and_keeps_a_width() -> None:
    ranks = np.array([0] * 270 + [1] * 30)
    same = proportions.paired(ranks, ranks)
    assert same["difference_points"] == 0
    low, high = same["difference_ci95_points"]
    assert low < 0 < high
    assert high < 2
    worse = proportions.paired(np.roll(ranks, 20), ranks)  # 20 lost, 20 gained
    assert worse["difference_ci95_points"][1] > high


def test_per_class_and_confusion_count_by_hand() -> None:
    logits = np.eye(4)[[0, 0, 1, 3, 3, 2]]  # top-1 answers
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert classification.per_class(logits, labels) == [
        {"class": 0, "images": 3, "top1_percent": pytest.approx(200 / 3), "mistaken_for": 1},
        {"class": 1, "images": 2, "top1_percent": 0.0, "mistaken_for": 3},
        {"class": 2, "images": 1, "top1_percent": 100.0, "mistaken_for": None},
    ]
    assert classification.confusion(logits, labels).tolist() == [[2, 1, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("drop", "interval", "verdict"),
    [
        (-3.0, None, "pass"),
        (1.0, None, "pass"),
        (81.98 - 80.98, None, "pass"),  # 1.0 but for the last bit
        (1.002, None, "fail"),
        (0.2, [-0.5, 0.9], "pass"),
        (0.2, [-0.5, 1.1], "inconclusive"),
        (1.5, [0.8, 2.2], "inconclusive"),
        (3.0, [1.2, 4.8], "fail"),
    ],
)
def test_verdict_asks_where_the_whole_interval_lies(drop: float, interval: list[float] | None, verdict: str) -> None:
    assert decide(drop, interval, 1.0) == verdict


@pytest.mark.parametrize(
    ("images", "top1_percent", "verdict"),
    [(50000, 60.0, "inconclusive"), (50000, 99.0, "fail"), (50000, 20.0, "pass"), (40, 50.9, "pass"), (40, 51.1, "fail")],
)
def test_same_number_of_images_as_the_expected_figure_means_no_interval(
    project: Path, scored: Scored, images: int, top1_percent: float, verdict: str
) -> None:
    expect(project, images=images, top1_percent=top1_percent)
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")  # Acc@1 is 50 %
    found = run.read("accuracy")
    assert found["verdict"] == verdict
    assert [check["metric"] for check in found["checks"]] == ["Acc@1", "Acc@5"]
    assert all((check["drop_ci95_points"] is None) == (images == 40) for check in found["checks"])
    assert found["drop_points"] == pytest.approx(top1_percent - 50)


def test_a_worse_top5_alone_fails(project: Path, scored: Scored) -> None:
    expect(project, images=40, top1_percent=50.0, top5_percent=60.0)
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")
    assert run.read("accuracy")["verdict"] == "fail"


def test_a_certain_failure_outweighs_an_open_question(project: Path, scored: Scored) -> None:
    expect(project, images=50000, top1_percent=60.0, top5_percent=99.0)  # Acc@1 inconclusive, Acc@5 far below
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")
    assert run.read("accuracy")["verdict"] == "fail"


def test_the_expected_row_sets_the_allowed_drop(project: Path, scored: Scored) -> None:
    expect(project, images=40, top1_percent=53.0, max_drop_points=3.5)
    found = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published").read("accuracy")
    assert (found["verdict"], found["max_drop_points"]) == ("pass", 3.5)


def test_without_an_expected_row_the_reference_is_the_yardstick(scored: Scored) -> None:
    good, labels = logits_with_ranks([0] * 40, 6)
    found = scored(np.roll(good, 1, axis=1), labels, reference=good).read("accuracy")
    assert found["expected"]["top1_percent"] == 100.0
    assert found["verdict"] == "fail"
    assert found["reference"]["agreement_percent"] == 0.0


@pytest.fixture
def take_as_current(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes a score count as current although the stages before it were not run."""
    return lambda: monkeypatch.setattr(records, "problem", lambda *_, **__: None)


def test_a_failed_verdict_raises_and_carries_its_row(
    project: Path, scored: Scored, take_as_current: Callable[[], None]
) -> None:
    expect(project, images=40, top1_percent=90.0)
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")
    take_as_current()
    failing = r"bs4: FAIL, Acc@1 is 50\.00 %, 40\.00 points below the 90\.00 % of Published, at most 1 below allowed"
    with pytest.raises(VerdictError, match=failing) as caught:
        accuracy.require_pass(run)
    assert caught.value.rows == [run.read("accuracy")]


def test_a_failure_of_acc5_alone_is_told_as_such(project: Path, scored: Scored, take_as_current: Callable[[], None]) -> None:
    expect(project, images=40, top1_percent=50.0, top5_percent=99.0)
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")
    take_as_current()
    with pytest.raises(VerdictError, match=r"FAIL, Acc@5 is 50\.00 %, 49\.00 points below the 99\.00 %"):
        accuracy.require_pass(run)


def test_without_a_published_figure_unrelated_answers_fail_however_low_the_accuracy(scored: Scored) -> None:
    logits, labels = logits_with_ranks([5] * 40, 6)  # 0 % right
    run = scored(logits, labels)
    assert run.read("accuracy")["verdict"] == "pass"
    np.save(run.file("logits"), -logits)
    accuracy._score(run)
    checks = {check["metric"]: check["verdict"] for check in run.read("accuracy")["checks"]}
    assert checks["top-1 agreement"] == "fail"
    assert run.read("accuracy")["verdict"] == "fail"


def test_result_has_the_recipes_bytes() -> None:
    top = {f"top{k}_percent": value for k, value in zip(classification.TOP, RECIPE_TOP, strict=True)}
    assert json.dumps(accuracy.seed_result({**top, "images": 50_000, "classes": 1000})) == RECIPE_RESULT


def test_result_prints_no_zeros_the_recipe_would_not() -> None:
    top = {f"top{k}_percent": 50.0 + k / 3 for k in range(1, 6)} | {"top1_percent": 50.0}
    rows = accuracy.seed_result({**top, "images": 4, "classes": 6})["value"]
    assert [row["value"] for row in rows[2:5]] == ["50.0%", "50.67%", "51.0%"]


def test_result_file_has_the_recipes_bytes_with_this_runs_numbers(scored: Scored) -> None:
    within = [round(100 * value) for value in RECIPE_TOP]  # of 10,000 images
    ranks = np.searchsorted(within, np.arange(10_000), side="right").tolist()
    run = scored(*logits_with_ranks(ranks, 6))
    expected = RECIPE_RESULT.replace('"50000"', '"10000"').replace('"1000"', '"6"')
    assert run.file("result").read_bytes() == expected.encode()


def test_a_label_outside_the_classes_names_the_image(scored: Scored) -> None:
    logits, labels = logits_with_ranks([0] * 9, 6)
    labels[[4, 7]] = 6, 9
    with pytest.raises(SpecError, match=r"00004\.png has label 6, the model has classes 0 to 5"):
        scored(logits, labels)


def test_an_unknown_expected_row_suggests_the_nearest(scored: Scored) -> None:
    with pytest.raises(SpecError, match=r"no row 'deit_smal' in .*did you mean 'deit_small'\?"):
        scored(*logits_with_ranks([0] * 4, 6), expected="deit_smal")


def test_the_file_holds_what_others_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = finished(tmp_path_factory).read("accuracy")
    tops = {f"top{k}_percent" for k in range(1, 6)}
    promised = {"images", "classes", "top1_ci95_percent", "reference", "expected", "drop_points", "max_drop_points", "verdict"}
    assert found.keys() >= tops | promised
    assert found["reference"].keys() >= {"name", "top1_percent", "agreement_percent"}
    assert found["expected"].keys() >= {"name", "top1_percent", "top5_percent", "source"}
    assert (found["images"], found["classes"]) == (13, 3)


def test_a_finished_run_scores_as_its_logits_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = finished(tmp_path_factory)
    labels = np.repeat([0, 1, 2], [5, 4, 4])  # 13 images dealt to three folders, listed folder by folder
    hits = np.load(run.file("logits")).argmax(axis=1) == labels
    assert 0 < hits.sum() < 13
    assert run.read("accuracy")["top1_percent"] == pytest.approx(100 * hits.mean())


def test_scoring_before_inference_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"logits\.npy: does not exist yet; run notebooks/05_infer\.ipynb with batch_size=4"
    ):
        accuracy.score(new_run(tmp_path))
