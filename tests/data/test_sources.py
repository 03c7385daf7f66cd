"""Which images a spec means and their labels: class folders, ImageNet synsets, label files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pictures import draw
from runs import write_spec
from timm.data import ImageNetInfo

from deit_helpers import open_run
from deit_helpers.data import sources
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.run.folder import Run

IMAGENET = ImageNetInfo()
SYNSETS = IMAGENET.label_names()


def run_on(project: Path, *names: str, label_text: str | bytes | None = None, **keys: Any) -> Run:
    """A run on small pictures of these names, and on a label file where `label_text` is given."""
    (project / "pictures").mkdir()
    for name in names:
        draw(project / "pictures" / name, (20, 20))
    if label_text is not None:
        (project / "labels.txt").write_bytes(label_text if isinstance(label_text, bytes) else label_text.encode())
        keys["labels"] = "labels.txt"
    return open_run(write_spec(project, **keys))


def labelled(run: Run) -> list[tuple[str, int]]:
    return [(item.name, item.label) for item in sources.list_images(run)]


def stored_words(run: Run) -> dict[int, str]:
    """Class words as later pages find them: from the index of the store alone."""
    run.file("index").parent.mkdir(parents=True)
    sources.write_index(run.file("index"), sources.list_images(run))
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
    names = sources.synset_names()
    assert list(names) == SYNSETS
    assert len(names) == 1000
    assert [*names.values()] == [IMAGENET.index_to_description(i) for i in range(1000)]


@pytest.mark.parametrize(
    ("names", "error", "parts"),
    [
        ((), ArtifactError, ["no images (.bmp, .jpeg, .jpg", "set `images`"]),
        (("1.jpg",), ArtifactError, ["without labels", "give `labels`, or one folder per class"]),
        (("n01440764/1.jpg", "tench/2.jpg"), SpecError, ["'tench' is no ImageNet synset", "'n01440764' is", "use one kind"]),
        (("n01440764/1.jpg", "n00000001/2.jpg"), SpecError, ["'n00000001' is none of ImageNet's 1000", "remove or rename"]),
    ],
)
def test_a_folder_whose_labels_are_not_clear_is_refused(
    project: Path, names: tuple[str, ...], error: type[Exception], parts: list[str]
) -> None:
    with pytest.raises(error) as caught:
        sources.list_images(run_on(project, *names))
    for part in (str(project / "pictures"), *parts):
        assert part in str(caught.value)


def test_empty_class_folders_hold_no_images(project: Path) -> None:
    run = run_on(project)
    (project / "pictures" / "apple").mkdir()
    with pytest.raises(ArtifactError, match="no images"):
        sources.list_images(run)


def test_a_missing_image_folder_is_named(project: Path) -> None:
    run = open_run(write_spec(project, images="nowhere"))
    with pytest.raises(ArtifactError, match=r"images: no such folder .*/nowhere; set `images`"):
        sources.list_images(run)


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg 3\nb c.png 0\n",
        "b c.png 0\na.jpg 3",
        "a.jpg 3\r\nb c.png 0\r\n",
        b"\xef\xbb\xbfa.jpg 3\r\nb c.png 0\r\n",
        "a.jpg\t3\nb c.png\t0\n",
        "  a.jpg   3  \n\n\t\nb c.png \t 0\n",
        "a 3\nb c 0\n",
        "a.jpg 003\nb c 0\nnot_here.jpg 7\n",
    ],
)
def test_label_files_of_many_habits_are_read(project: Path, text: str | bytes) -> None:
    run = run_on(project, "a.jpg", "b c.png", label_text=text)
    assert labelled(run) == [("a.jpg", 3), ("b c.png", 0)]
    assert sources.class_words(run) == {}


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg 3.0", "a.jpg -1", "a.jpg three", "3", "a.jpg,3", "a.jpg ²"])
def test_a_bad_line_of_a_label_file_is_named_with_its_number(project: Path, line: str) -> None:
    run = run_on(project, "a.jpg", label_text=f"a.jpg 1\n\n{line}\n")
    with pytest.raises(SpecError) as caught:
        sources.list_images(run)
    assert str(caught.value).startswith(f"{project}/labels.txt:3: expected `NAME LABEL`")
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize("name", ["labels.txt", "none.txt", "pictures"])
def test_a_label_file_that_cannot_be_read_is_named(project: Path, name: str) -> None:
    run_on(project, "a.jpg", label_text="a.jpg 1\n".encode("utf-16"))
    with pytest.raises(SpecError, match=f"labels: .*/{name} cannot be read .*give a text file of lines"):
        sources.list_images(open_run(write_spec(project, labels=name)))


def test_an_image_without_a_label_is_named_with_the_line_to_add(project: Path) -> None:
    run = run_on(project, "a.jpg", "b.jpg", label_text="a.jpg 1\n")
    with pytest.raises(ArtifactError, match=r"pictures/b\.jpg: no label for it in .*labels\.txt; add the line `b\.jpg LABEL`"):
        sources.list_images(run)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (5, 5), (13, 13), (99, 13), (None, 13)])
def test_the_limit_takes_the_first_images_by_name(class_folders: Path, limit: int | None, count: int) -> None:
    project = class_folders.parent
    items = labelled(open_run(write_spec(project, limit=limit)))
    assert items == labelled(open_run(write_spec(project)))[:count]
    assert len(items) == count
