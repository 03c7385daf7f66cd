"""The verdict: pass, fail or inconclusive, by where the interval of the drop lies; and what the verdicts say of the port."""

from __future__ import annotations

from typing import Any

import pytest

from deit_helpers.metrics.verdict import AGREEMENT, PUBLISHED, REFERENCE, SAME_IMAGES, decide, how_bad, of_run, port


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


def test_agrees_and_meets_is_a_port_that_is_right() -> None:
    kind, told = port("pass", "pass")
    assert (kind, told.startswith("the port is right")) == ("pass", True)


def test_agrees_and_misses_is_a_faithful_port_of_something_wrong() -> None:
    kind, told = port("pass", "fail")
    assert kind == "fail"  # the run: what it hands in is not what was expected
    assert "the port is faithful" in told
    assert "the checkpoint, the labels or the recipe are wrong" in told


def test_differs_and_meets_is_within_tolerance_and_points_at_the_changed_images() -> None:
    kind, told = port("fail", "pass")
    assert kind == "fail"
    assert told.startswith("within tolerance")
    assert "see the changed images" in told


def test_differs_and_misses_is_a_port_that_loses_accuracy() -> None:
    kind, told = port("fail", "fail")
    assert (kind, told.startswith("the port loses accuracy")) == ("fail", True)


@pytest.mark.parametrize("meets", ["pass", "inconclusive", None])
def test_what_is_undecided_is_neither_blamed_nor_praised(meets: str | None) -> None:
    kind, told = port("inconclusive", meets)
    assert kind == "inconclusive"
    assert "cannot tell" in told
    assert not any(word in told for word in ("is right", "faithful", "loses", "wrong"))


def test_a_missed_expectation_beside_an_undecided_port_blames_nobody_yet() -> None:
    kind, told = port("inconclusive", "fail")
    assert kind == "fail"
    assert "whether by the port or by checkpoint, labels or recipe is not told" in told


def test_without_an_expectation_agreement_says_nothing_of_the_checkpoint() -> None:
    assert port("pass", None) == ("pass", port("pass", None)[1])
    assert "no expectation is named" in port("pass", None)[1]
    assert port("fail", None)[0] == "fail"


def row(kind: str | None, verdict: str, metric: str = "Acc@1") -> dict[str, Any]:
    return {"metric": metric, "kind": kind, "verdict": verdict, "drop_points": 0.5, "max_drop_points": 1.0}


def scored(*checks: dict[str, Any], cause: str | None = None) -> dict[str, Any]:
    verdict = max((check["verdict"] for check in checks), key=("pass", "inconclusive", "fail").index)
    return {"checks": list(checks), "verdict": "inconclusive" if cause else verdict, "cause": cause}


@pytest.mark.parametrize("of_expected", [PUBLISHED, SAME_IMAGES])
@pytest.mark.parametrize("of_fp32", [REFERENCE, AGREEMENT])
@pytest.mark.parametrize("verdicts", [("pass", "pass"), ("pass", "fail"), ("fail", "pass"), ("inconclusive", "fail")])
def test_kinds_of_checks_are_told_apart(of_expected: str, of_fp32: str, verdicts: tuple[str, str]) -> None:
    agrees, meets = verdicts
    assert of_run([scored(row(of_expected, meets), row(of_fp32, agrees))]) == port(agrees, meets)


def test_one_bad_batch_size_or_one_bad_check_decides() -> None:
    right, lossy = scored(row(PUBLISHED, "pass"), row(REFERENCE, "pass")), row(REFERENCE, "fail", "Acc@5")
    assert of_run([right, scored(row(PUBLISHED, "pass"), row(REFERENCE, "pass"), lossy)]) == port("fail", "pass")


def test_checks_of_an_older_version_have_no_kind_and_count_as_of_the_reference() -> None:
    assert of_run([scored({key: value for key, value in row(None, "pass").items() if key != "kind"})]) == port("pass", None)


@pytest.mark.parametrize(
    ("cause", "agrees"),
    [("the labels, not the port: 3 of 300", "pass"), ("the labels, and perhaps the port: 3", "inconclusive")],
)
def test_where_the_reference_guesses_the_labels_are_wrong_and_nothing_fails_by_it(cause: str, agrees: str) -> None:
    checks = row(PUBLISHED, "pass"), row(REFERENCE, "pass")
    assert of_run([scored(*checks), scored(*checks, cause=cause)]) == ("inconclusive", port(agrees, "fail")[1])


def test_a_failure_outweighs_a_reference_that_guesses() -> None:
    guessing = scored(row(REFERENCE, "pass"), cause="the labels, not the port: 3 of 300")
    assert of_run([guessing, scored(row(REFERENCE, "fail"))]) == port("fail", None)


def test_what_is_not_scored_keeps_a_run_from_passing_but_not_from_failing() -> None:
    kind, told = of_run([scored(row(REFERENCE, "pass"))], ["bs8"])
    assert (kind, told.startswith("bs8 not scored yet")) == ("inconclusive", True)
    assert of_run([scored(row(REFERENCE, "fail"))], ["bs8"]) == port("fail", None)
    assert of_run([], ["bs8"]) == ("inconclusive", "not scored yet")


def test_of_checks_with_one_verdict_acc1_is_told_before_acc5() -> None:
    top1, top5 = row(PUBLISHED, "fail"), {**row(PUBLISHED, "fail", "Acc@5"), "drop_points": 9.0}
    assert max([top5, top1], key=how_bad) is top1
    assert max([top5, {**top1, "verdict": "pass"}], key=how_bad) is top5
