"""Which images a spec means and their labels: class folders, ImageNet synsets, label files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import draw
from runs import write_spec
from timm.data import ImageNetInfo

from deit_helpers import files, open_run
from deit_helpers.data import classes, sources
from deit_helpers.errors import ArtifactError
from deit_helpers.run.folder import Run

IMAGENET = ImageNetInfo()
SYNSETS = IMAGENET.label_names()


def run_on(project: Path, *names: str) -> Run:
    """A run on small pictures of these names."""
    (project / "pictures").mkdir()
    for name in names:
        draw(project / "pictures" / name, (20, 20))
    return open_run(write_spec(project))


def labelled(run: Run) -> list[tuple[str, int]]:
    given = sources.label_images(run, sources.list_folder(run), None)
    return [(name, given[name]) for name in sources.list_images(run)]


def stored_words(run: Run) -> dict[int, str]:
    """Class words as later pages find them: from the files of 04 alone."""
    given = dict(labelled(run))
    run.file("index").parent.mkdir(parents=True)
    sources.write_index(run.file("index"), given)
    files.write_json(run.file("preprocess"), {"dataset": None, "synsets": sources.are_synsets(run, given)})
    return sources.class_words(run)


def test_class_folders_are_numbered_in_sorted_order(project: Path) -> None:
    run = run_on(project, "pear/1.jpg", "apple/2.png", "Zebra/0.JPEG", "apple/10.jpg")
    assert labelled(run) == [("Zebra/0.JPEG", 0), ("apple/10.jpg", 1), ("apple/2.png", 1), ("pear/1.jpg", 2)]
    assert stored_words(run) == {0: "Zebra", 1: "apple", 2: "pear"}


def test_other_files_and_hidden_folders_are_passed_over(project: Path) -> None:
    run = run_on(project, "a/1.jpg", ".cache/2.jpg")
    (project / "pictures" / "a" / "Thumbs.db").write_bytes(b"x")
    (project / "pictures" / "readme.txt").write_text("x")
    assert labelled(run) == [("a/1.jpg", 0)]


@pytest.mark.parametrize("indices", [(0,), (999,), (7, 281, 998), (134, 135, 517, 639)])
def test_synset_folders_get_the_index_of_imagenet_even_when_only_some_are_there(project: Path, indices: tuple[int]) -> None:
    run = run_on(project, *(f"{SYNSETS[i]}/{i}.jpg" for i in indices))
    assert labelled(run) == [(f"{SYNSETS[i]}/{i}.jpg", i) for i in indices]
    assert stored_words(run) == {i: IMAGENET.index_to_description(i).split(",")[0] for i in range(1000)}


def test_the_synsets_are_those_of_timm_in_its_order() -> None:
    names = classes.synset_names()
    assert list(names) == SYNSETS
    assert len(names) == 1000
    assert [*names.values()] == [IMAGENET.index_to_description(i) for i in range(1000)]


def test_a_known_data_set_has_imagenets_words_for_a_head_of_1000_classes_alone(project: Path) -> None:
    run = run_on(project, "0/1.jpg", "1/1.jpg")
    assert stored_words(run) == {0: "0", 1: "1"}
    files.write_json(run.file("preprocess"), {"dataset": "imagenet-v2"})
    assert sources.class_words(run)[1] == "1"
    run.file("export").parent.mkdir()
    files.write_json(run.file("export"), {"classes": 1000})
    assert sources.class_words(run)[1] == "goldfish"


VALIDATION = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (3, 77)]


@pytest.mark.parametrize(
    ("names", "checkpoint", "synsets", "words"),
    [
        (VALIDATION, "tuned.pth", False, "goldfish"),
        (["a.jpg", "b.jpg"], "tuned.pth", True, "goldfish"),
        (["a.jpg", "b.jpg"], "hub", False, "goldfish"),
        (["a.jpg", "b.jpg"], "data/deit_small_patch16_224-cd65a155.pth", False, "goldfish"),
        (["a.jpg", "b.jpg"], "tuned.pth", False, "1"),
        (["a.jpg", VALIDATION[0]], "deit_small_patch16_224-mine.pth", False, "1"),
    ],
    ids=[
        "a part of the validation set",
        "synsets",
        "timm's weights",
        "Meta's file",
        "1000 other classes",
        "a file of a user's",
    ],
)
def test_with_a_label_file_1000_classes_are_imagenets_only_where_something_says_so(
    project: Path, names: list[str], checkpoint: str, synsets: bool, words: str
) -> None:
    run = open_run(write_spec(project)).replace(labels="labels.txt", checkpoint=checkpoint)
    for name in ("index", "export"):
        run.file(name).parent.mkdir(parents=True)
    sources.write_index(run.file("index"), dict(zip(names, (0, 1), strict=True)))
    files.write_json(run.file("export"), {"classes": 1000})
    files.write_json(run.file("preprocess"), {"dataset": None, "synsets": synsets})
    assert sources.class_words(run)[1] == words
    files.write_json(run.file("export"), {"classes": 100})
    assert sources.class_words(run)[1] == "1"


def test_labels_are_synsets_where_each_has_imagenets_index(project: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        draw(project / "pictures" / name, (20, 20))
    labels = {"synsets": f"a.jpg {SYNSETS[7]}\nb.jpg {SYNSETS[998]}", "numbers": "a.jpg 7\nb.jpg 998"}
    for kind, text in labels.items():
        (project / "labels.txt").write_text(text)
        run = open_run(write_spec(project, labels="labels.txt"))
        given = sources.label_images(run, sources.list_folder(run), 1000)
        assert given == {"a.jpg": 7, "b.jpg": 998}
        assert sources.are_synsets(run, given) is (kind == "synsets")
    (project / "labels.txt").write_text(labels["synsets"])
    assert not sources.are_synsets(run, {"a.jpg": 0, "b.jpg": 1})  # two of some classes in the order of their names


def test_class_folders_of_a_1000_class_head_keep_their_names_whoever_trained_it(project: Path) -> None:
    run = run_on(project, "pear/1.jpg", "apple/2.png").replace(checkpoint="hub")
    run.file("export").parent.mkdir(parents=True)
    files.write_json(run.file("export"), {"classes": 1000})
    assert stored_words(run) == {0: "apple", 1: "pear"}


def test_synset_folders_in_another_order_keep_their_own_words(project: Path) -> None:
    run = run_on(project, f"{SYNSETS[7]}/1.jpg", f"{SYNSETS[9]}/1.jpg")
    run.file("index").parent.mkdir(parents=True)
    sources.write_index(run.file("index"), {f"{SYNSETS[7]}/1.jpg": 0, f"{SYNSETS[9]}/1.jpg": 1})
    assert sources.class_words(run) == {0: "cock", 1: "ostrich"}


def test_empty_class_folders_hold_no_images(project: Path) -> None:
    run = run_on(project)
    (project / "pictures" / "apple").mkdir()
    with pytest.raises(ArtifactError, match="no images"):
        sources.list_images(run)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (5, 5), (13, 13), (99, 13), (None, 13)])
def test_the_limit_takes_so_many_images_and_keeps_the_order_of_names(class_folders: Path, limit: int, count: int) -> None:
    project = class_folders.parent
    items = labelled(open_run(write_spec(project, limit=limit)))
    everything = labelled(open_run(write_spec(project)))
    assert items == [item for item in everything if item in items]
    assert len(items) == count


def test_the_limit_spreads_over_the_labels_however_they_are_given(class_folders: Path) -> None:
    project = class_folders.parent
    of_folders = sources.list_images(open_run(write_spec(project, limit=6)))
    assert Counter(name.partition("/")[0] for name in of_folders) == {"apple": 2, "berry": 2, "cedar": 2}
    lines = [
        f"{path.relative_to(class_folders)} {'0' if path.parent.name == 'apple' else 'n01440764'}"
        for path in class_folders.rglob("*.jpg")
    ]
    (project / "labels.txt").write_text("\n".join(lines))
    of_file = sources.list_images(open_run(write_spec(project, limit=8, labels="labels.txt")))
    assert Counter(name.startswith("apple") for name in of_file) == {True: 3, False: 5}  # 5 of 13 are 3.1 of 8


def test_another_seed_draws_other_images_and_the_same_seed_the_same(class_folders: Path) -> None:
    project = class_folders.parent
    draws = [sources.list_images(open_run(write_spec(project, limit=6, limit_seed=s))) for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    "sizes", [[50] * 1000, [3, 100, 7, 41, 1], [1, 1, 1], [9]], ids=["imagenet", "uneven", "single", "one"]
)
def test_every_label_has_its_share_to_less_than_one_image(sizes: list[int], seed: int) -> None:
    labels = [f"n{label}" for label, size in enumerate(sizes) for _ in range(size)]
    shuffled = [labels[i] for i in np.random.default_rng(1).permutation(len(labels))]
    for count in {1, 2, len(labels) // 3 + 1, len(labels) - 1} - {0, len(labels)}:
        chosen = sources.spread(shuffled, count, seed)
        taken = Counter(shuffled[i] for i in chosen)
        assert chosen == sorted(set(chosen))
        assert len(chosen) == count
        assert all(abs(taken[f"n{label}"] - count * size / len(labels)) < 1 for label, size in enumerate(sizes))


def test_five_hundred_of_a_thousand_classes_are_not_the_first_five_hundred() -> None:
    labels = [f"n{i // 50:04d}" for i in range(50_000)]
    classes = [i // 50 for i in sources.spread(labels, 500, 0)]
    assert len(set(classes)) == 500
    assert 430 < np.mean(classes) < 570  # of 0 to 999
