"""Top-k, classes and confusion counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deit_helpers.metrics import classification


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
    percent = classification.percent_within(classification.label_ranks(logits, labels), k)
    assert percent == pytest.approx(100 * hits / 200, abs=1e-12)
    if k == 1:
        assert percent == 100 * np.mean(logits.argmax(axis=1) == labels)


def test_among_equal_logits_the_lower_class_ranks_first() -> None:
    logits = np.array([[1.0, 5.0, 5.0, 5.0]] * 4)
    assert classification.label_ranks(logits, np.arange(4)).tolist() == [3, 0, 1, 2]


def test_labels_shifted_by_one_are_scored_wrong() -> None:
    labels = np.arange(50) % 6
    ranks = classification.label_ranks(np.eye(6)[labels], (labels + 1) % 6)
    assert classification.percent_within(ranks, 1) == 0


def test_per_class_and_confusion_count_by_hand() -> None:
    logits, reference = np.eye(4)[[0, 0, 1, 3, 3, 2]], np.eye(4)[[3, 2, 0, 1, 1, 2]]  # top-1 answers
    labels = np.array([0, 0, 0, 1, 1, 2])
    columns = ("class", "images", "top1_percent", "mistaken_for", "reference_top1_percent", "gained", "lost")
    rows = [
        (0, 3, pytest.approx(200 / 3), 1, pytest.approx(100 / 3), 2, 1),
        (1, 2, 0.0, 3, 100.0, 0, 2),
        (2, 1, 100.0, None, 100.0, 0, 0),
    ]
    assert classification.per_class(logits, labels, reference) == [dict(zip(columns, row, strict=True)) for row in rows]
    assert classification.confusion(logits, labels).tolist() == [[2, 1, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_ranking_is_that_of_a_stable_sort_ties_included(count: int) -> None:
    logits = np.random.default_rng(0).integers(0, 4, (50, 7)).astype(np.float32)
    before = logits.copy()
    np.testing.assert_array_equal(classification.ranking(logits, count), np.argsort(-logits, 1, kind="stable")[:, :count])
    np.testing.assert_array_equal(logits, before)
