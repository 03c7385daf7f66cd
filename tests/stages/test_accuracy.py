"""Scoring: top-k, intervals, paired test, verdict and the recipe's result file, on logits made by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from runs import copy_of, new_run, opened

from deit_helpers import files, open_run
from deit_helpers.data.labels import real_labels
from deit_helpers.data.sources import write_index
from deit_helpers.errors import ArtifactError, SpecError, VerdictError
from deit_helpers.metrics import classification
from deit_helpers.report import accuracy as page
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
        run = opened(project, **keys)
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


def checks_of(scores: dict, *kinds: str) -> list[dict]:
    return [check for check in scores["checks"] if check["kind"] in kinds]


@pytest.mark.parametrize(
    ("images", "top1_percent", "verdict"),
    [(50000, 60.0, "inconclusive"), (50000, 99.0, "fail"), (50000, 20.0, "pass"), (40, 50.9, "pass"), (40, 51.1, "fail")],
)
def test_same_number_of_images_as_the_expected_figure_means_no_interval(
    project: Path, scored: Scored, images: int, top1_percent: float, verdict: str
) -> None:
    expect(project, images=images, top1_percent=top1_percent)
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")  # Acc@1 is 50 %
    scores = run.read("accuracy")
    figures = checks_of(scores, "same images" if images == 40 else "published")
    assert [(check["metric"], check["verdict"]) for check in figures] == [("Acc@1", verdict), ("Acc@5", "pass")]
    assert all((check["drop_ci95_points"] is None) == (images == 40) for check in figures)
    assert scores["drop_points"] == pytest.approx(top1_percent - 50)
    assert scores["verdict"] == ("fail" if verdict == "fail" else "inconclusive")  # 40 images say little of the port


AGREEING = [0] * 240 + [3] * 45 + [5] * 15  # ranks of 300 labels: Acc@1 80 %, Acc@5 95 %


def test_300_images_in_full_agreement_pass_against_the_reference(scored: Scored, take_as_current: Callable[[], None]) -> None:
    run = scored(*logits_with_ranks(AGREEING, 6), batch_sizes=[4])
    take_as_current()
    assert run.read("accuracy")["verdict"] == "pass"
    assert "with 95 % confidence at most 0.99 points are lost" in page.verdict(run).text


def test_300_images_against_a_published_figure_say_how_many_would_decide(
    project: Path, scored: Scored, take_as_current: Callable[[], None]
) -> None:
    expect(project, images=50_000, top1_percent=79.9, top5_percent=95.0)
    run = scored(*logits_with_ranks(AGREEING, 6), batch_sizes=[4], expected="published")
    take_as_current()
    scores, banner = run.read("accuracy"), page.verdict(run)
    assert {check["verdict"] for check in checks_of(scores, "reference")} == {"pass"}
    assert [check["images_to_decide"] for check in checks_of(scores, "published")] == [10_269, 3_396]
    assert (scores["verdict"], banner.kind) == ("inconclusive", "inconclusive")
    told = "so few can tell a loss of 6.4 points from none, not one of 1, 10,269 would settle it (power 80 %)"
    assert told in banner.text
    assert "78.90 % (1 points below 79.90 %) is met; 79.10 % (1 % of it below 79.90 %) is met; the verdict" in banner.text


@pytest.mark.parametrize(("images", "verdict"), [(60, "inconclusive"), (298, "inconclusive"), (299, "pass")])
def test_full_agreement_passes_from_299_images_on(images: int, verdict: str, scored: Scored) -> None:
    scores = scored(*logits_with_ranks([0] * images, 6)).read("accuracy")
    assert scores["verdict"] == verdict
    wanted = None if verdict == "pass" else 299
    assert [check["images_to_decide"] for check in checks_of(scores, "reference")] == [wanted, wanted]


@pytest.mark.parametrize(
    ("lost", "verdict", "images"),
    [
        (3, "pass", None),
        (6, "inconclusive", 3_518),
        (10, "inconclusive", None),
        (14, "inconclusive", 5_649),
        (40, "fail", None),
    ],
)
def test_the_images_that_only_the_reference_gets_right_decide(
    lost: int, verdict: str, images: int | None, scored: Scored, take_as_current: Callable[[], None]
) -> None:
    right, labels = logits_with_ranks([0] * 1000, 6)
    port = right.copy()
    port[:lost] = logits_with_ranks([1] * 1000, 6)[0][:lost]
    run = scored(port, labels, reference=right, batch_sizes=[4])
    scores = run.read("accuracy")
    top1, top5 = checks_of(scores, "reference")
    assert (top1["verdict"], top1["images_to_decide"], top1["drop_points"]) == (verdict, images, pytest.approx(lost / 10))
    assert (top5["verdict"], top5["drop_points"]) == ("pass", 0)
    take_as_current()
    said = {
        "pass": "with 95 % confidence at most 0.77 points are lost",
        "fail": "with 97.5 % confidence at least 2.87 points are lost",
        "inconclusive": "would settle it"
        if images
        else "no 50,000 images are likely to settle it: the drop is too near the limit",
    }
    assert said[verdict] in page.verdict(run).text


def test_a_loss_that_fails_alone_may_be_chance_among_many_batch_sizes(scored: Scored) -> None:
    right, labels = logits_with_ranks([0] * 1000, 6)
    port = right.copy()
    port[:19] = logits_with_ranks([1] * 1000, 6)[0][:19]
    facts = [scored(port, labels, reference=right, batch_sizes=sizes).read("accuracy") for sizes in ([4], [1, 4, 8, 16, 32])]
    assert [(row["tests"], checks_of(row, "reference")[0]["verdict"]) for row in facts] == [(2, "fail"), (10, "inconclusive")]
    assert facts[0]["checks"][0]["drop_at_least_points"] > 1 > facts[1]["checks"][0]["drop_at_least_points"]


def test_a_lossless_port_is_never_failed(project: Path, scored: Scored) -> None:
    expect(project, images=50_000, top1_percent=0.0, max_drop_points=0.0)
    scores = scored(*logits_with_ranks([0, 3, 5], 6), expected="published").read("accuracy")
    assert scores["verdict"] == "inconclusive"
    assert [check["images_to_decide"] for check in checks_of(scores, "reference")] == [None, None]


def test_a_certain_failure_outweighs_an_open_question(project: Path, scored: Scored) -> None:
    expect(project, images=50000, top1_percent=60.0, top5_percent=99.0)  # Acc@1 inconclusive, Acc@5 far below
    run = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published")
    assert run.read("accuracy")["verdict"] == "fail"


def test_the_expected_row_sets_the_allowed_drop(project: Path, scored: Scored) -> None:
    expect(project, images=40, top1_percent=53.0, max_drop_points=3.5)
    scores = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published").read("accuracy")
    assert {check["verdict"] for check in checks_of(scores, "same images")} == {"pass"}
    assert {check["max_drop_points"] for check in scores["checks"]} == {scores["max_drop_points"]} == {3.5}


def test_without_an_expected_row_the_reference_is_the_yardstick(scored: Scored) -> None:
    good, labels = logits_with_ranks([0] * 40, 6)
    scores = scored(np.roll(good, 1, axis=1), labels, reference=good).read("accuracy")
    assert scores["expected"]["top1_percent"] == 100.0
    assert scores["verdict"] == "fail"
    assert scores["reference"]["agreement_percent"] == 0.0


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
    run = scored(-logits, labels, reference=logits)
    checks = {check["metric"]: check["verdict"] for check in run.read("accuracy")["checks"]}
    assert checks["top-1 agreement"] == "fail"
    assert (run.read("accuracy")["verdict"], run.read("accuracy")["cause"]) == ("fail", None)


GUESSES = [
    # ranks of the labels, classes, expected Acc@1; the port answers as its reference does
    ("none right", [5] * 40, 6, None, "0 of 40 right, which cannot be told from guessing among 6 classes"),
    ("as many right as guessing gives", [0, 5, 5, 5, 5, 5] * 10, 6, None, "10 of 60 right"),
    ("1.2 % of 1000 classes, folders sorted as text", [0] * 12 + [7] * 988, 1000, 79.9, "12 of 1000 right"),
    ("a published figure as low", [0] + [7] * 999, 1000, 0.1, "1 of 1000 right"),
    ("one image", [1], 10, None, "0 of 1 right"),
]


@pytest.mark.parametrize(("what", "ranks", "classes", "published", "cause"), GUESSES, ids=[row[0] for row in GUESSES])
def test_a_reference_that_guesses_says_the_labels_not_the_port(
    what: str,
    ranks: list[int],
    classes: int,
    published: float | None,
    cause: str,
    project: Path,
    scored: Scored,
    take_as_current: Callable[[], None],
) -> None:
    if published:
        expect(project, images=len(ranks), top1_percent=published)
    run = scored(*logits_with_ranks(ranks, classes), expected="published" if published else None)
    facts = run.read("accuracy")
    assert facts["verdict"] == "inconclusive"
    assert facts["cause"].startswith("the labels, not the port: the fp32 reference itself has ")
    assert cause in facts["cause"]
    take_as_current()
    banner = page.verdict(run.replace(batch_sizes=(4,)))
    assert banner.kind == "inconclusive"
    assert banner.text.startswith(
        "The port is faithful, it agrees with fp32: the checkpoint, the labels or the recipe are wrong. "
    )
    assert "wrong. The labels, not the port: " in banner.text
    with pytest.raises(VerdictError, match="bs4: INCONCLUSIVE, the labels, not the port: ") as caught:
        accuracy.require_pass(run)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("ranks", "classes", "verdict"),
    [([0] * 114 + [5] * 186, 6, "pass"), ([0, 0], 1000, "inconclusive"), ([0] * 187 + [5] * 813, 1000, "pass")],
)
def test_a_low_accuracy_that_no_guessing_gives_is_judged_as_ever(
    ranks: list[int], classes: int, verdict: str, scored: Scored
) -> None:
    facts = scored(*logits_with_ranks(ranks, classes)).read("accuracy")
    assert (facts["verdict"], facts["cause"]) == (verdict, None)


def test_a_port_that_differs_is_not_excused_by_a_reference_that_guesses(project: Path, scored: Scored) -> None:
    expect(project, images=40, top1_percent=0.0)
    logits, labels = logits_with_ranks([5] * 40, 6)
    facts = scored(np.roll(logits, 1, axis=1), labels, reference=logits, expected="published").read("accuracy")
    assert facts["verdict"] == "inconclusive"
    assert facts["cause"].startswith("the labels, and perhaps the port: ")


def test_with_valid_classes_answers_are_sought_among_those_of_the_images_alone(project: Path, scored: Scored) -> None:
    """As timm's `validate.py --valid-labels`: `output[:, valid_labels]`, whose columns count as classes 0 and up."""
    valid, generator = [1, 3, 4], np.random.default_rng(5)
    logits = generator.normal(size=(40, 6)).astype(np.float32)
    labels = generator.choice(valid[:2], 40)  # class 4 has images, but none that `limit` took
    expect(project, images=40, top1_percent=50.0, valid_classes="labels")
    (project / "reports/test/dataset").mkdir(parents=True)
    files.write_json(project / "reports/test/dataset/preprocess.json", {"label_classes": valid})
    scores = scored(logits, labels, reference=logits + 0.5, expected="published").read("accuracy")
    order = np.argsort(-logits[:, valid], axis=1)
    targets = np.array([valid.index(label) for label in labels])
    assert scores["top1_percent"] == pytest.approx(100 * np.mean(order[:, 0] == targets))
    assert scores["top2_percent"] == pytest.approx(100 * np.mean((order[:, :2] == targets[:, None]).any(axis=1)))
    assert scores["top3_percent"] == 100.0
    assert (scores["valid_classes"], scores["classes"]) == (3, 6)
    assert (scores["reference"]["agreement_percent"], scores["reference"]["max_abs_diff"]) == (100.0, pytest.approx(0.5))
    assert np.array(scores["confusion"])[:, [0, 2, 5]].sum() == 0


def test_without_a_published_acc5_it_is_not_checked(project: Path, scored: Scored) -> None:
    expect(project, images=40, top1_percent=50.0, top5_percent=None)
    scores = scored(*logits_with_ranks([0] * 20 + [5] * 20, 6), expected="published").read("accuracy")
    assert [(check["metric"], check["kind"]) for check in scores["checks"]] == [
        ("Acc@1", "same images"),
        ("Acc@1", "reference"),
        ("Acc@5", "reference"),
    ]
    assert [check["verdict"] for check in scores["checks"]] == ["pass", "inconclusive", "inconclusive"]  # of 40 images


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


def test_the_file_holds_what_others_read(finished: Run) -> None:
    scores = finished.read("accuracy")
    tops = {f"top{k}_percent" for k in range(1, 6)}
    promised = {"images", "classes", "top1_ci95_percent", "reference", "expected", "drop_points", "max_drop_points", "verdict"}
    assert scores.keys() >= tops | promised
    assert scores["reference"].keys() >= {"name", "top1_percent", "agreement_percent"}
    assert scores["expected"].keys() >= {"name", "top1_percent", "top5_percent", "source"}
    assert (scores["images"], scores["classes"]) == (13, 3)


def test_a_finished_run_scores_as_its_logits_say(finished: Run) -> None:
    labels = np.repeat([0, 1, 2], [5, 4, 4])  # 13 images dealt to three folders, listed folder by folder
    hits = np.load(finished.file("logits")).argmax(axis=1) == labels
    assert 0 < hits.sum() < 13
    assert finished.read("accuracy")["top1_percent"] == pytest.approx(100 * hits.mean())


def test_the_predictions_file_is_what_an_opened_run_answers(finished: Run) -> None:
    table = pd.read_csv(finished.file("predictions"), converters={"top5": json.loads})
    asked = open_run(finished.folder / "spec.yaml", 4).predictions()
    pd.testing.assert_frame_equal(table, asked, check_dtype=False, rtol=1e-6)
    first = ["image", "label", "label_name", "answer", "answer_name", "correct", "top5", "margin", "probability"]
    assert list(table) == [*first, "reference", "agrees", "reference_margin"]
    assert 100 * table["correct"].mean() == pytest.approx(finished.read("accuracy")["top1_percent"])


NAMES = [
    "a,b.png",
    'q"uote.png',
    "two\nlines.png",
    "cr\rcr.png",
    "猫/中文.png",
    "<script>.png",
    "a|b.png",
    "\udce9.png",
    "=1+1.png",
]


def test_any_name_survives_the_predictions_file(finished: Run, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    names = [*NAMES, *(f"{i}.png" for i in range(13 - len(NAMES)))]
    write_index(run.file("index"), dict.fromkeys(names, 1))
    accuracy._score.__wrapped__(run)  # type: ignore[attr-defined]
    with run.file("predictions").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == names


def test_the_p_values_of_classes_are_corrected_for_all_of_them(scored: Scored) -> None:
    right, labels = logits_with_ranks([0] * 600, 6)
    port = right.copy()
    lost = np.flatnonzero(labels == 2)[:9]
    port[lost] = logits_with_ranks([1] * 600, 6)[0][lost]
    rows = scored(port, labels, reference=right).read("accuracy")["per_class"]
    assert [row["p_value_holm"] for row in rows] == pytest.approx([1, 1, 6 * 2 / 2**9, 1, 1, 1])
    assert [(row["gained"], row["lost"]) for row in rows] == [(0, 9 * (index == 2)) for index in range(6)]


def test_scoring_before_inference_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"logits\.npy: does not exist yet; run notebooks/05_infer\.ipynb with batch_size=4"
    ):
        accuracy.score(new_run(tmp_path))


def test_any_of_the_real_labels_is_right_and_images_without_one_are_left_out(project: Path) -> None:
    (project / "real.json").write_text(json.dumps([[0], [1, 2], [], [2], [1]]))
    run = opened(project, real_labels="real.json")
    names = [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3, 5)]
    answers, reference = (np.eye(3)[classes] for classes in ([0, 2, 0, 0], [0, 1, 1, 1]))
    real = accuracy._real(run, names, answers, reference)
    assert (real["images"], real["top1_percent"], real["reference_top1_percent"]) == (3, pytest.approx(200 / 3), 100)
    assert (real["paired"]["only_this_right"], real["paired"]["only_reference_right"]) == (0, 1)
    assert real["expected_top1_percent"] is None


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            "[[0], 1]",
            "ILSVRC2012_val_00000001.JPEG",
            "real.json: Input should be a valid array at .1,.; expected ReaL's real.json",
        ),
        ("{", "ILSVRC2012_val_00000001.JPEG", "real.json: Invalid JSON"),
        (None, "ILSVRC2012_val_00000001.JPEG", "real.json: No such file or directory; expected ReaL's real.json"),
        ("[[0]]", "ILSVRC2012_val_00000002.JPEG", "none of the 1 images of .*real.json"),
        ("[[0]]", "cat.jpg", "cat.jpg: none of the 1 images of .*real.json"),
    ],
)
def test_what_are_no_real_labels_is_one_line(project: Path, content: str | None, name: str, message: str) -> None:
    if content:
        (project / "real.json").write_text(content)
    with pytest.raises((SpecError, ArtifactError), match=message):
        real_labels(opened(project, real_labels="real.json"), [name])
