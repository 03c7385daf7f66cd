"""What a user may bring as labels, and what comes of it: class folders, label files, files that are not used, odd names.

Each row is what lies in the image folder (`pictures`), the label file if there is one, keys of the spec, the classes of the
checkpoint, and the outcome: the labels of the images in the order of their names, or what the error line says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pictures import draw
from refusals import refused
from runs import make_checkpoint, opened
from timm.data import ImageNetInfo

from deit_helpers import files
from deit_helpers.data import sources
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.report import preprocess as page
from deit_helpers.run import hashing
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, preprocess

SYNSETS = ImageNetInfo().label_names()
TENCH, GOLDFISH, TISSUE = SYNSETS[0], SYNSETS[1], SYNSETS[999]
VAL = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 11)]
# Of the first ten validation images: ids in the devkit's ground truth, and indices in caffe's val.txt.
IDS, INDICES = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164], [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]
NUMERIC, TEXT = {"class_order": "numeric"}, {"class_order": "text"}
FROM_1, DEVKIT_IDS = {"labels_format": "from_1"}, {"labels_format": "devkit"}
NFC, NFD = (f"{unicodedata.normalize(form, 'é')}.jpg" for form in ("NFC", "NFD"))


class Case(NamedTuple):
    what: str
    pictures: list[str]
    outcome: list[int] | str
    label_file: str | bytes | None = None
    classes: int | None = 1000
    keys: dict[str, Any] = {}  # noqa: RUF012


def folders(*names: str) -> list[str]:
    return [f"{name}/1.jpg" for name in names]


def numbered(first: int, stop: int) -> list[str]:
    return sorted(folders(*map(str, range(first, stop))))


def column(values: list[Any]) -> str:
    return "".join(f"{value}\n" for value in values)


CLASS_FOLDERS = [
    Case("words, as many as classes", folders("apple", "pear"), [0, 1], classes=2),
    Case("words before 01 was run", folders("apple", "pear"), [0, 1], classes=None),
    Case("fewer words than classes", folders("apple", "pear"),
         "2 for the checkpoint's 3 classes.*set class_order.*or give `labels`", classes=3),
    Case("fewer words, told that sorted is right", folders("apple", "pear"), [0, 1], classes=3, keys=TEXT),
    Case("more words than classes", folders("a", "b", "c"),
         "c/1.jpg has label 2.* classes 0 to 1.*its folder 'c' says so", classes=2),
    Case("0…999 as in ImageNetV2", numbered(0, 1000), r"set class_order: numeric \(2 before 10\) or text \(10 first"),
    Case("0…999, before 01 was run", numbered(0, 1000), "set class_order: numeric", classes=None),
    Case("0…999, numeric", numbered(0, 1000), sorted(range(1000), key=str), keys=NUMERIC),
    Case("0…11, numeric, before 01", numbered(0, 12), [0, 1, 10, 11, *range(2, 10)], classes=None, keys=NUMERIC),
    Case("0…999, text", numbered(0, 1000), list(range(1000)), keys=TEXT),
    Case("1…1000", numbered(1, 1001), r"class_order: numeric \(2 before 10\)"),
    Case("1…1000, numeric", numbered(1, 1001), [n - 1 for n in sorted(range(1, 1001), key=str)], keys=NUMERIC),
    Case("0…9", numbered(0, 10), list(range(10)), classes=10),
    Case("class_1…class_12", folders("class_1", "class_10", "class_12", "class_2"), "class_order", classes=4),
    Case("0.cat…10.cat", [f"{i}.cat/1.jpg" for i in (0, 1, 10, 2)], r"numeric \(2.cat before 10.cat\)", classes=4),
    Case("0.cat…10.cat, numeric", [f"{i}.cat/1.jpg" for i in (0, 1, 10, 2)], [0, 1, 3, 2], classes=4, keys=NUMERIC),
    Case("v1.10 and v1.9", folders("v1.10", "v1.9"), "set class_order: numeric", classes=2),
    Case("007/207/340, for 1000 classes", folders("007", "207", "340"), "3 for the checkpoint's 1000 classes"),
    Case("007/207/340, numeric", folders("007", "207", "340"), [7, 207, 340], keys=NUMERIC),
    Case("007/207/340, for 3 classes", folders("007", "207", "340"), [0, 1, 2], classes=3),
    Case("007/207/340, numeric, before 01", folders("007", "207", "340"),
         "run notebooks/01_export", classes=None, keys=NUMERIC),
    Case("7 and 07, numeric", folders("07", "7"), "no number twice", classes=2, keys=NUMERIC),
    Case("words, numeric", folders("apple", "pear"), "needs a number in each", classes=2, keys=NUMERIC),
    Case("some of ImageNet's synsets", folders(TENCH, TISSUE), [0, 999]),
    Case("synsets before 01 was run", folders(TENCH, TISSUE), [0, 999], classes=None),
    Case("ten synsets for ten classes", folders(*SYNSETS[500:510]), list(range(10)), classes=10),
    Case("ten synsets for ten classes, told to be ImageNet's", folders(*SYNSETS[500:510]),
         "n03042490/1.jpg has label 500.* classes 0 to 9", classes=10, keys={"class_order": "synset"}),
    Case("two synsets for ten classes", folders(TENCH, TISSUE), "2 for the checkpoint's 10 classes", classes=10),
    Case("a synset that is not ImageNet's", folders("n00000001", TENCH), "'n00000001' is none of ImageNet's 1000 synsets"),
    Case("names of 121 characters", folders(*(60 * "éa" + end for end in ("1", "10", "2"))),
         "set class_order: numeric", classes=3),
    Case("synsets and words", folders(TENCH, "tench"), "'tench' is no ImageNet synset, but 'n01440764' is"),
    Case("an archive's odd folder", [*folders("apple", "pear"), "__MACOSX/apple/"], [0, 1], classes=2),
    Case("a class without images", [*folders("apple", "pear"), "fig/"], [0, 2], classes=3),
    Case("train and val", ["train/a/1.jpg", "val/a/1.jpg"], "are parts of a data set.*set `images` to .*/pictures/val$"),
    Case("train in folders, val flat", ["train/a/1.jpg", "val/1.jpg"], "set `images` to .*/pictures/val$"),
    Case("classes one level deeper", ["val/a/1.jpg", "val/b/1.jpg"],
         "no images in its folders, but in val/a: set `images` to .*/pictures/val$"),
    Case("CLASS/images/", ["a/images/1.jpg", "b/images/1.jpg"], "but in a/images and the like: move them up"),
    Case("images without folders", ["1.jpg"], "without labels: give `labels`, or one folder per class"),
    Case("nothing", [], r"no images \(.bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp\) found"),
]  # fmt: skip

TWO = ["a.jpg", "b c.png"]
LABEL_FILES = [
    Case("spaces", TWO, [3, 0], "a.jpg 3\nb c.png 0"),
    Case("spaces, tabs, empty lines", TWO, [3, 0], "  a.jpg   3  \n\n\t\nb c.png \t 0\n"),
    Case("tabs", TWO, [3, 0], "a.jpg\t3\nb c.png\t0\n"),
    Case("commas", TWO, [3, 0], "a.jpg,3\nb c.png, 0\n"),
    Case("quotes and spaces, or a colon", TWO, [3, 0], 'a.jpg: 3\n"b c.png" 0\n'),
    Case("semicolons", TWO, [3, 0], "a.jpg;3\nb c.png;0\n"),
    Case("commas and a header", TWO, [3, 0], "filename,label\na.jpg,3\nb c.png,0\n"),
    Case("quotes, a comma in a name", ["a, b.jpg"], [3], '"file","class"\n"a, b.jpg","3"\n'),
    Case("a comma in a name, a space before the label", ["a,b.jpg"], [3], "a,b.jpg 3\n"),
    Case("line ends of Windows and a BOM", TWO, [3, 0], b"\xef\xbb\xbfa.jpg 3\r\nb c.png 0\r\n"),
    Case("line ends of an old Mac", TWO, [3, 0], "a.jpg 3\rb c.png 0\r"),
    Case("UTF-16, as PowerShell writes", ["é.jpg"], [3], "é.jpg 3\r\n".encode("utf-16")),
    Case("no extensions", TWO, [3, 0], "a 3\nb c 0\n"),
    Case("leading zeros, and a line too many", TWO, [3, 0], "a.jpg 003\nb c 0\nnot_here.jpg 7\n"),
    Case("synsets", TWO, [999, 0], f"a.jpg {TISSUE}\nb c.png\t{TENCH}\n"),
    Case("synsets, as many as classes", TWO, [1, 0], f"a.jpg {TISSUE}\nb c.png {GOLDFISH}\n", classes=2),
    Case("a synset that is not ImageNet's", TWO, "label 'n00000001' is none", f"a.jpg n00000001\nb c.png {TENCH}\n"),
    Case("Kaggle's LOC_val_solution.csv", ["v1.JPEG", "v2.JPEG"], [0, 999],
         f"ImageId,PredictionString\nv2,{TISSUE} 85 1 499 272 \nv1,{TENCH} 1 2 3 4 {TENCH} 5 6 7 8 \n"),
    Case("Tiny ImageNet's val_annotations.txt", ["val_0.JPEG", "val_1.JPEG"], [0, 1],
         f"val_0.JPEG\t{GOLDFISH}\t0\t32\t44\t62\nval_1.JPEG\t{TISSUE}\t52\t55\t57\t59\n", classes=2),
    Case("the same below images/", ["images/val_0.JPEG"], [1], f"val_0.JPEG\t{GOLDFISH}\t0\t32\t44\t62\n"),
    Case("class folders, lines with them", folders("x", "y"), [5, 4], "y/1.jpg 4\nx/1.jpg 5\n"),
    Case("class folders, a line for each", ["x/1.jpg", "x/2.jpg", "y/1.jpg"], [5, 5, 4], "y 4\nx 5\n"),
    Case("leading folders", TWO, [3, 0], "val/a.jpg 3\n./val/b c.png 0\n"),
    Case("absolute paths", folders("x", "y"), [5, 4], "/data/val/y/1.jpg 4\n/data/val/x/1.jpg 5\n"),
    Case("Windows paths", TWO, [3, 0], "D:\\val\\a.jpg 3\nD:\\val\\b c.png 0\n"),
    Case("another case and extension", ["A.JPEG", "b.jpg"], [3, 0], "a.jpg 3\nB.PNG 0\n"),
    Case("composed here, decomposed there", [NFD], [3], f"{NFC} 3\n"),
    Case("decomposed here, composed there", [NFC], [3], f"{NFD} 3\n"),
    Case("a name that is no UTF-8", [os.fsdecode(b"caf\xe9.jpg")], [3], b"caf\xe9.jpg 3\n"),
    Case("two images that a line may mean", ["A.jpg", "a.png"],
         "A.jpg: no label for it.*nearest is line 1: `a.jpeg 3`", "a.jpeg 3\n"),
    Case("two lines that may mean an image", ["a.jpg"],
         "no label for it.*the nearest is line 1: `x/a.jpg 3`", "x/a.jpg 3\ny/a.jpg 4\n"),
    Case("a name misspelt", ["dog_01.jpg"],
         r"add the line `dog_01\.jpg LABEL`; the nearest is line 2: `dgo_01\.jpg 7`", "cat.jpg 1\ndgo_01.jpg 7\n"),
    Case("no line at all", ["a.jpg"], r"pictures/a\.jpg: no label for it in .*labels\.txt; add the line `a\.jpg LABEL`$", ""),
    Case("one image twice", ["a.jpg"], r"labels.txt:2: a.jpg already has label 3: remove", "a.jpg 3\na.jpg 4\n"),
    *(Case(f"a wrong line: {line}", ["a.jpg"],
           rf"labels\.txt:3: expected `NAME LABEL`.* got {re.escape(repr(line))}", f"a.jpg 1\n\n{line}\n")
      for line in ("a.jpg", "a.jpg 3.0", "a.jpg -1", "a.jpg three", "3", "a.jpg,10,3", "a.jpg ²")),
    Case("a line of 100,000 characters", ["a.jpg"], "labels.txt:2: expected `NAME LABEL`", "a.jpg 1\n" + 100_000 * "x"),
    Case("no text", ["a.jpg"], "labels.txt cannot be read .it is no text.; give a text file", b"PK\x03\x04\x00\x00a.jpg 1\n"),
    Case("UTF-16 cut short", ["a.jpg"], "labels.txt cannot be read .*give a text file", "a.jpg 1\n".encode("utf-16")[:-1]),
    Case("counted from 1", ["a.jpg", "b.jpg"],
         "b.jpg has label 2, the model has classes 0 to 1: .*set labels_format: from_1, or devkit",
         "a.jpg 1\nb.jpg 2\n", classes=2),
    Case("counted from 1, as said", ["a.jpg", "b.jpg"], [0, 1], "a.jpg 1\nb.jpg 2\n", classes=2, keys=FROM_1),
    Case("said to be counted from 1", ["a.jpg"],
         "labels.txt:1: 0 is no label of labels_format: from_1", "a.jpg 0\n", keys=FROM_1),
    Case("too large a label", ["a.jpg", "b.jpg"],
         "b.jpg has label 5, the model has classes 0 to 2: mend labels.txt$", "a.jpg 0\nb.jpg 5\n", classes=3),
    Case("names with the devkit's ids", VAL, INDICES,
         column([f"{name} {id_}" for name, id_ in zip(VAL, IDS, strict=True)]), keys=DEVKIT_IDS),
    Case("no id of the devkit", ["a.jpg"], "1001 is no label of labels_format: devkit", "a.jpg 1001\n", keys=DEVKIT_IDS),
    Case("a bare column", VAL, "labels without names: set labels_format: devkit .*from_1 or index", column(IDS)),
    Case("a bare column of the devkit's ids", VAL, INDICES, column(IDS), keys=DEVKIT_IDS),
    Case("a bare column of indices with a header", VAL, INDICES, "label\n" + column(INDICES), keys={"labels_format": "index"}),
    Case("a bare column of synsets", VAL, INDICES, column([SYNSETS[i] for i in INDICES]), keys={"labels_format": "index"}),
    Case("a bare column too short", VAL,
         "9 labels without names for 10 images", column(IDS[1:]), keys=DEVKIT_IDS),
]  # fmt: skip


def content_of(case: Case) -> bytes:
    content = case.label_file or ""
    return content if isinstance(content, bytes) else content.encode()


def lay_out(project: Path, case: Case, image: bytes = b"") -> Run:
    """The folder and the label file of a case, and a run on them."""
    keys = dict(case.keys)
    for name in ("", *case.pictures):
        path = project / "pictures" / name
        if name.endswith("/") or not name:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    if case.label_file is not None:
        (project / "labels.txt").write_bytes(content_of(case))
        keys["labels"] = "labels.txt"
    return opened(project, **keys)


@pytest.mark.parametrize("case", [*CLASS_FOLDERS, *LABEL_FILES], ids=lambda case: case.what)
def test_labels(case: Case, project: Path) -> None:
    run = lay_out(project, case)
    if isinstance(case.outcome, list):
        given = sources.label_images(run, sources.list_folder(run), case.classes)
        assert list(given) == sorted(name for name in case.pictures if not name.endswith("/"))
        assert list(given.values()) == case.outcome
    else:
        with refused(case.outcome):
            sources.label_images(run, sources.list_folder(run), case.classes)


NO_FILES = [
    ("none.txt", "No such file"),
    ("pictures", "it is no file"),
    ("/dev/zero", "it is no file"),
]


@pytest.mark.parametrize(("path", "why"), NO_FILES, ids=[why for _, why in NO_FILES])
def test_a_label_file_that_is_none(path: str, why: str, project: Path) -> None:
    run = lay_out(project, Case("", ["a.jpg"], "", keys={"labels": path}))
    assert hashing.listing_sha256(run.image_folder, run.root / path) is None
    with refused(f"^labels: .* cannot be read .{why}.*; give a text file of lines", SpecError):
        sources.label_images(run, sources.list_folder(run), None)


def test_an_image_folder_that_is_none(project: Path) -> None:
    run = opened(project, images="nowhere")
    assert hashing.listing_sha256(run.image_folder, None) is None
    with refused(r"images: no such folder .*; set `images`", ArtifactError):
        sources.list_folder(run)


def test_labels_format_needs_labels(project: Path) -> None:
    with pytest.raises(SpecError, match="expected labels with labels_format"):
        opened(project, labels_format="devkit")


def test_the_devkits_ids_are_a_permutation_of_timms_synsets() -> None:
    from deit_helpers.data.classes import devkit_indices

    assert sorted(devkit_indices()) == list(range(1, 1001))
    assert sorted(devkit_indices().values()) == list(range(1000))
    assert [SYNSETS[devkit_indices()[i]] for i in (1, 2, 3, 1000)] == ["n02119789", "n02100735", "n02110185", "n03255030"]


def test_labels_are_checked_against_the_checkpoint_in_01(project: Path) -> None:
    """Three classes; before, the run went on to the end of 05 and was stopped there, or passed."""
    make_checkpoint(project / "tiny.pth")
    draw(project / "pictures" / "apple" / "1.jpg")
    draw(project / "pictures" / "berry" / "1.jpg")
    run = opened(project)
    with pytest.raises(SpecError, match="class folders: 2 for the checkpoint's 3 classes"):
        export.export(run)
    assert not run.file("export").exists()


def test_04_goes_by_the_classes_that_01_saw(project: Path) -> None:
    make_checkpoint(project / "tiny.pth")
    for synset in SYNSETS[700:703]:
        draw(project / "pictures" / synset / "1.jpg")
    run = opened(project)
    preprocess.preprocess(run)
    assert sources.read_index(run)[1].tolist() == [700, 701, 702]
    export.export(run)
    preprocess.preprocess(run)
    assert sources.read_index(run)[1].tolist() == [0, 1, 2]


def test_a_limit_draws_before_01_although_which_class_a_label_is_cannot_be_known_yet(project: Path) -> None:
    strange = "".join(f"{name} n9999999{i}\n" for i, name in enumerate(("a.jpg", "b.jpg", "c.jpg")))
    run = lay_out(project, Case("", ["a.jpg", "b.jpg", "c.jpg"], "", strange, keys={"limit": 2}))
    drawn = sources.list_images(run)
    with pytest.raises(SpecError, match="is none of ImageNet's 1000 synsets"):
        sources.label_images(run, sources.list_folder(run), None)
    assert len(drawn) == 2
    files.write_json(run.file("export"), {"classes": 3})  # three synsets for three classes: now they are clear
    assert sources.list_images(run) == drawn


def test_a_limit_takes_images_of_every_label_of_a_bare_column_with_the_right_one(project: Path) -> None:
    names = [f"{letter}.jpg" for letter in "abcdef"]
    run = lay_out(project, Case("", names, "", column([3, 3, 1, 1, 2, 2]), keys={"limit": 3, **FROM_1}))
    labels = sources.label_images(run, sources.list_folder(run), 3)
    drawn = sources.list_images(run)
    assert [labels[name] for name in drawn] == [2, 0, 1]
    assert [names.index(name) // 2 for name in drawn] == [0, 1, 2]


def test_a_label_file_without_a_line_for_an_image_stops_a_limited_run_at_once(project: Path) -> None:
    run = lay_out(project, Case("", ["a.jpg", "b.jpg"], "", "a.jpg 3\n", keys={"limit": 1}))
    with pytest.raises(ArtifactError, match=r"b\.jpg: no label for it in .*labels\.txt; add the line `b\.jpg LABEL`"):
        sources.list_images(run)


NOT_USED = [
    ("other kinds of file", ["a/1.gif", "a/2.GIF", "a/Thumbs.db", "a/LICENSE"], {".gif": 2, ".db": 1, "no suffix": 1}),
    ("stray files at the top", ["1.jpg", "readme.txt"], {".jpg beside the class folders": 1, ".txt": 1}),
    ("hidden files and folders", [".DS_Store", ".cache/", "a/._1.jpg"], {"hidden": 3}),
    ("images one level too deep", ["a/images/1.jpg", "b/images/1.jpg", "b/1.jpg"], {"folder": 2}),
    ("an empty folder", ["b/"], {"folder": 1}),
]


@pytest.mark.parametrize(("what", "names", "kinds"), NOT_USED, ids=[row[0] for row in NOT_USED])
def test_what_is_not_used_is_counted_and_listed_in_04(
    what: str, names: list[str], kinds: dict[str, int], project: Path
) -> None:
    image = draw(project / "1.jpg").read_bytes()
    run = lay_out(project, Case(what, ["a/1.jpg", *names], ""), image)
    rows = preprocess.preprocess(run)["left_out"]
    assert {row["kind"]: row["count"] for row in rows} == kinds
    assert sum(len(row["names"]) for row in rows) == sum(kinds.values())
    assert all(name in page.left_out(run)._repr_html_() for row in rows for name in row["names"])


def test_with_labels_folders_beside_the_images_are_listed_too_but_not_the_label_file(project: Path) -> None:
    image = draw(project / "1.jpg").read_bytes()
    run = lay_out(project, Case("", ["a.jpg", "more/b.jpg"], "", keys={"labels": "pictures/labels.txt"}), image)
    (project / "pictures" / "labels.txt").write_text("a.jpg 1\n")
    assert preprocess.preprocess(run)["left_out"] == [{"kind": "folder", "count": 1, "names": ["more/"]}]


@pytest.mark.parametrize("suffix", [".ppm", ".pgm", ".tif", ".tiff", ".JPEG", ".Png"])
def test_images_of_these_suffixes_are_read(suffix: str, project: Path) -> None:
    draw(project / "pictures" / "a" / f"1{suffix}", mode="L" if suffix == ".pgm" else "RGB")
    run = opened(project)
    assert (preprocess.preprocess(run)["images"], preprocess.preprocess(run)["left_out"]) == (1, [])


ODD_NAMES = [b"caf\xe9.jpg", b"two\nlines.jpg", b"\x1b[31mred.jpg", b"a,b\"c'.jpg", 240 * b"\xff" + b".jpg", "é.jpg".encode()]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_odd_names_survive_04_its_page_and_its_messages(locale: str, project: Path) -> None:
    """In a process of its own: the locale decides how it decodes the names of files."""
    image = draw(project / "1.jpg").read_bytes()
    folder = project / "pictures" / "a"
    folder.mkdir(parents=True)
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(image)
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".gif")).write_bytes(image)
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff\n.jpg")).write_bytes(b"")
    opened(project, on_bad_image="skip")
    program = (
        "from deit_helpers import open_run, stages\n"
        "from deit_helpers.report import preprocess as page\n"
        "run = open_run('params/test.yaml')\n"
        "facts = stages.preprocess.preprocess(run)\n"
        "''.join(part(run)._repr_html_() for part in (page.crops, page.left_out, page.skipped)).encode()\n"
        "print(facts['images'], facts['skipped'][0]['reason'])\n"
    )
    environment = {**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, reason = done.stdout.removesuffix("\n").split(" ", 1)
    assert (count, len(reason.splitlines())) == (str(len(ODD_NAMES)), 1)
    assert r"bad\udcff\n.jpg" in reason
    assert len(reason) < 500
    run = opened(project, on_bad_image="skip")
    assert sorted(os.fsencode(name) for name in sources.read_index(run)[0]) == sorted(b"a/" + name for name in ODD_NAMES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_listed_and_links_in_a_circle_end(project: Path) -> None:
    run = opened(project)
    folder = run.image_folder / "cat"
    folder.mkdir(parents=True)
    draw(folder / "1.jpg")
    os.mkfifo(folder / "zz.jpg")
    for name in ("up", "again"):
        (folder / name).symlink_to("..")
    assert hashing.listing_sha256(run.image_folder, None) is not None
    listing = sources.list_folder(run)
    assert sorted(listing.left_out) == sorted(f"{folder.name}/{name}" for name in ("again/", "up/", "zz.jpg"))
