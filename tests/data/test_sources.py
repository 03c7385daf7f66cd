"""Which images a spec means and their labels: class folders, ImageNet synsets, label files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import draw
from runs import write_spec
from timm.data import ImageNetInfo

from deit_helpers import open_run
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
    return [(item.name, given[item.name]) for item in sources.list_images(run)]


def stored_words(run: Run) -> dict[int, str]:
    """Class words as later pages find them: from the index of the store alone."""
    run.file("index").parent.mkdir(parents=True)
    sources.write_index(run.file("index"), dict(labelled(run)))
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
    words = {i: IMAGENET.index_to_description(i).split(",")[0] for i in indices}
    assert stored_words(run) == words


def test_the_synsets_are_those_of_timm_in_its_order() -> None:
    names = classes.synset_names()
    assert list(names) == SYNSETS
    assert len(names) == 1000
    assert [*names.values()] == [IMAGENET.index_to_description(i) for i in range(1000)]


def test_empty_class_folders_hold_no_images(project: Path) -> None:
    run = run_on(project)
    (project / "pictures" / "apple").mkdir()
    with pytest.raises(ArtifactError, match="no images"):
        sources.list_images(run)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (5, 5), (13, 13), (99, 13), (None, 13)])
def test_the_limit_takes_the_first_images_by_name(class_folders: Path, limit: int | None, count: int) -> None:
    project = class_folders.parent
    items = labelled(open_run(write_spec(project, limit=limit)))
    assert items == labelled(open_run(write_spec(project)))[:count]
    assert len(items) == count
