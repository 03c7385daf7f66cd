"""What a user may bring as a spec, a path, a command line or a recipe's text, and what comes of it.

A row: what it is, how it is made, and its outcome: a value, or a regular expression that the one line of the error matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from recorded import PUBLISHED
from refusals import MOST, refused
from runs import write_spec

from deit_helpers import open_run
from deit_helpers.__main__ import main
from deit_helpers.ascend import benchmark, dumps
from deit_helpers.report import html
from deit_helpers.run.spec import RunSpec
from deit_helpers.stages import accuracy

LONG = "x" * 3000
NOT_UTF8 = "caf\udce9"  # how Python holds the bytes of a name in Latin-1
HOME = str(Path.home())


def check(expected: Any, call: Callable[[], Any]) -> None:
    if isinstance(expected, re.Pattern):
        with refused(expected.pattern):
            call()
    else:
        assert call() == expected


LEAST = "run: a\nmodel: m\ncheckpoint: c\nimages: i\n"
BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" if i else "a0: &a0 [1]\n" for i in range(12))
MERGES = "".join(f"m{i}: &m{i}\n  <<: [{', '.join([f'*m{i - 1}'] * 9)}]\n" if i else "m0: &m0 {k: 1}\n" for i in range(12))

SPECS = {  # the bytes of a spec file -> the value of `images`
    "UTF-8": ("run: a\nmodel: m\ncheckpoint: c\nimages: größe\n".encode(), "größe"),
    "a key twice": (f"{LEAST}limit: 5\nlimit: 50\n".encode(), re.compile("x.yaml: not valid YAML .*key 'limit' twice")),
    "with a byte order mark": (b"\xef\xbb\xbf" + LEAST.encode(), "i"),
    "UTF-16, as PowerShell writes": (LEAST.encode("utf-16"), "i"),
    "Windows line ends": (LEAST.replace("\n", "\r\n").encode(), "i"),
    "JSON": (b'{"run": "a", "model": "m", "checkpoint": "c", "images": "i"}', "i"),
    "an anchor": (b"run: a\nmodel: &m m\ncheckpoint: *m\nimages: *m\n", "m"),
    "Latin-1": (LEAST.replace("i\n", "gr\xf6\n").encode("latin-1"), re.compile(r"byte 40 is not UTF-8\); save it as UTF-8")),
    "a checkpoint": (b"PK\x03\x04\x80\x02", re.compile(r"x\.yaml: cannot be read .* name a spec file")),
    "annotations of 200 KB": (b"[" + b"1, " * 70_000 + b"1]", re.compile("more than 100000 bytes are no spec; name a spec")),
    "empty": (b"", re.compile("expected a mapping of keys to values, found NoneType; name a spec file")),
    "a list": (b"- a\n- b\n", re.compile("found list")),
    "numbers for keys": (b"1: 2\n", re.compile("expected a mapping of keys to values")),
    "a tab": (b"run: a\n\tmodel: m\n", re.compile("not valid YAML .*line 2")),
    "a date that is none": (LEAST.encode() + b"limit: 2026-02-30\n", re.compile(r"not valid YAML \(day is out of range")),
    "brackets in brackets": (b"run: " + b"[" * 5000, re.compile("nested too deeply")),
    "an integer of 10,000 digits": (LEAST.encode() + b"limit: 0x" + b"f" * 10_000, re.compile("integer of more than 63 bits")),
    "a tag without a value": (b"run: !!int", re.compile("not valid YAML")),
    "lists of lists that double": (LEAST.encode() + BOMB.encode(), re.compile("unknown key 'a0'.*; and 9 more$")),
    "merged keys that double": (
        LEAST.encode() + MERGES.encode(),
        re.compile("not valid YAML .*'<<' instead of the keys"),
    ),
    "40 unknown keys": (
        LEAST.encode() + b"".join(b"k%d: 1\n" % i for i in range(40)),
        re.compile("unknown key 'k0'.*; and 37 more$"),
    ),
}


@pytest.mark.parametrize("what", SPECS)
def test_a_spec_file(tmp_path: Path, what: str) -> None:
    content, expected = SPECS[what]
    (tmp_path / "x.yaml").write_bytes(content)
    check(expected, lambda: RunSpec.load(tmp_path / "x.yaml").images)


URL = "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth"
VALUES = {  # key and value of a spec -> the value that it has then
    "a path in the home folder": ("checkpoint", "~/w.pth", f"{HOME}/w.pth"),
    "the same for images": ("images", "~/val", f"{HOME}/val"),
    "the same for labels": ("labels", "~/val_label.txt", f"{HOME}/val_label.txt"),
    "a path that begins with ./": ("images", "./val/", "./val/"),
    "a name that is not UTF-8": ("images", NOT_UTF8, NOT_UTF8),
    "somebody else's home folder": ("images", "~nobody_of_this_name/val", re.compile("'images': expected a path without ~")),
    "a URL": ("checkpoint", URL, re.compile("'checkpoint': expected a path, not a URL: download it first.*got 'https://dl")),
    "a bucket": ("images", "s3://bucket/val", re.compile("'images': expected a path, not a URL: download it first")),
    "no text": ("images", "", re.compile("'images': expected a path .*got ''")),
    "a NUL": ("checkpoint", "a\0b", re.compile(r"'checkpoint': expected a path .*got 'a\\x00b'")),
    "a path of 3,000 characters": ("checkpoint", LONG, re.compile("'checkpoint': expected a path of at most .*got 'xxx")),
    "a run's name of 3,000": ("run", LONG, re.compile("'run': expected text of at most 100 characters, got 'xxx")),
    "a key of 3,000": (LONG, 1, re.compile("unknown key 'xxxx")),
    "an edit of 3,000": ("edits", [LONG], re.compile(r"'edits\.0': expected one of .*got 'xxx")),
    "lists in lists": ("opset", [[[[[[[[1]]]]]]]], re.compile(r"'opset': expected a valid integer, got \[\[\[")),
    "3,000 batch sizes": ("batch_sizes", [0] * 3000, re.compile("'batch_sizes': expected one or more different .*got ")),
    "a batch of a million": ("batch_sizes", [1_000_000], re.compile("positive integers up to 65536, .*got ")),
    "time without end": ("time_box_s", float("inf"), re.compile("'time_box_s': expected a finite number, got inf")),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_value_of_a_spec(project: Path, what: str) -> None:
    key, value, expected = VALUES[what]
    path = write_spec(project)
    check(expected, lambda: getattr(RunSpec.load(path, {key: value}), key))


def test_a_name_that_is_not_utf8_is_the_same_in_the_spec_of_the_run_folder(project: Path) -> None:
    run = open_run(write_spec(project, images=NOT_UTF8))
    assert open_run(run.folder / "spec.yaml").spec.images == NOT_UTF8


LINES = {  # arguments of `deit-report`, in a project with `params/test.yaml` -> a pattern of its one line
    "a spec that is not here": (["run", "params/none.yaml"], r"params/none\.yaml: no such file in /.+; name a spec file"),
    "the same, absolute": (["run", "/none.yaml"], r"/none\.yaml: no such file; name a spec file"),
    "a spec of 3,000 characters": (["run", LONG], "x…x+: expected a path of at most"),
    "a spec that is a URL": (["run", "https://x.org/a.yaml"], r"https://x\.org/a\.yaml: expected a path, .*download it first"),
    "a spec with ~": (["run", "~/none/of/this.yaml"], f"{HOME}/none/of/this.yaml: no such file"),
    "a folder": (["run", "params"], r"params: cannot be read \(Is a directory\); name a spec file"),
    "a NUL": (["run", "a\0b"], r"a\\x00b: expected a path"),
    "a spec whose name is not UTF-8": (["run", f"{NOT_UTF8}.yaml"], r"caf\\udce9\.yaml: no such file"),
    "a value with a URL": (["run", "params/test.yaml", "-s", "images=http://x"], "'images': expected a path, not a URL"),
    "a value of 3,000": (["run", "params/test.yaml", "-s", f"opset={LONG}"], "'opset': expected a valid integer, got 'xxx"),
    "a value that is no YAML": (["run", "params/test.yaml", "-s", f"opset=[{LONG}"], r"-s opset=\[x.*not valid YAML"),
    "no value": (["run", "params/test.yaml", "-s", LONG], "-s x+…x+: expected KEY=VALUE"),
    "a number of 3,000": (["run", "params/test.yaml", "-b", LONG], "Invalid value for '-b'.* is not a valid integer"),
    "an option of 3,000": (["run", f"--{LONG}"], "No such option '?--xxx"),
    "an option of 3,000 before the verb": ([f"--{LONG}"], "No such option '?--xxx"),
    "a verb of 3,000": ([LONG], "No such command 'xxx"),
    "a run folder of 3,000": (["render", LONG], "x…x+: expected a path of at most"),
    "a run folder with ~": (["render", "~/none/of/this"], f"{HOME}/none/of/this: no run folder"),
    "a run folder whose name is not UTF-8": (["render", NOT_UTF8], r"caf\\udce9: no run folder"),
}


@pytest.mark.parametrize("what", LINES)
def test_a_command_line(project: Path, what: str) -> None:
    arguments, pattern = LINES[what]
    write_spec(project)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2), result.exception
    (line,) = [line for line in result.output.splitlines() if re.match("error: ", line, re.IGNORECASE)]
    assert re.search(pattern, line), line
    assert len(line) <= MOST + len("error: ")
    assert line.isprintable()


def test_bytes_that_are_not_utf8_may_be_given_behind_a_key(project: Path) -> None:
    write_spec(project)
    planned = CliRunner().invoke(main, ["run", "params/test.yaml", "-s", f"images={NOT_UTF8}", "--plan"])
    assert r"images: no such folder" in planned.output
    assert r"caf\udce9" in planned.output


def test_a_run_lies_in_no_folder_whose_name_is_not_utf8(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / NOT_UTF8).mkdir()
    monkeypatch.chdir(project / NOT_UTF8)
    path = write_spec(project)
    with refused(r"/caf\\udce9/reports/test: pages are UTF-8, .*rename it"):
        open_run(path)


NOTEBOOKS = ["", "[]", "3", "{}", "<<<<<<< HEAD", '{"nbformat": 4, "cells": 3}', '{"nbformat": 99}', "[" * 100_000, "\xff"]


@pytest.mark.parametrize("content", NOTEBOOKS, ids=lambda content: content[:20])
def test_a_notebook_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "05_infer.ipynb"
    path.write_bytes(content.encode("latin-1"))
    with refused(r"/05_infer\.ipynb: cannot be read as a notebook .*restore"):
        html.read(path)


def recipe(text: str) -> Any:
    """What a README says: its batch sizes with the rate of the call, and its accuracies."""
    performance, accuracies = benchmark.read_recipe(text, "README.md")
    return {size: row.interface_per_s for size, row in performance.items()}, accuracies


def indented(text: str, by: str = "    ") -> str:
    return "".join(f"{by}{line}\n" for line in text.splitlines())


ONE, EIGHT = (text for _, text in PUBLISHED)
JSON = '{{"title": "", "value": [{{"key": "Number of classes", "value": "{classes}"}}, {tops}]}}'


def result_json(classes: int) -> str:
    tops = (f'{{"key": "Top{k} accuracy", "value": "{70 + k}%"}}' for k in range(1, min(classes, 5) + 1))
    return JSON.format(classes=classes, tops=", ".join(tops))


RECIPES = {  # a README -> batch sizes with images per second of the call, and accuracies; or an error
    "the recipe's two blocks": (
        f"perf_vision_batchsize_1_x:\n{ONE}```\nbatch8：\n```\n{EIGHT}```",
        ({1: 103.795, 8: 122.054}, []),
    ),
    "indented, as in a list": (f"1. batch1\n{indented(ONE)}\n2. batch8\n{indented(EIGHT)}", ({1: 103.795, 8: 122.054}, [])),
    "quoted": (f"> batch8\n{indented(EIGHT, '> ')}", ({8: 122.054}, [])),
    "Windows line ends": (f"batch8\n{EIGHT}".replace("\n", "\r\n"), ({8: 122.054}, [])),
    "blank lines in a block": (f"batch8\n{EIGHT}".replace("\n", "\n\n"), ({8: 122.054}, [])),
    "batch_size=8": (f"./benchmark.x86_64 -batch_size=8 -om_path=m\n{EIGHT}", ({8: 122.054}, [])),
    "batch size: 8": (f"batch size: 8\n{EIGHT}", ({8: 122.054}, [])),
    "Batch-Size 8": (f"Batch-Size 8\n{EIGHT}", ({8: 122.054}, [])),
    "BS8": (f"### BS8\n{EIGHT}", ({8: 122.054}, [])),
    "deit_bs8.om behind an older size": (f"batch1\n{ONE}\ndeit_bs8.om\n{EIGHT}", ({1: 103.795, 8: 122.054}, [])),
    "the same block twice": (f"batch8\n{EIGHT}\nbatch8\n{EIGHT}", ({8: 122.054}, [])),
    "two blocks of one size": (
        f"batch8\n{EIGHT}\n{ONE}",
        re.compile("README.md: performance lines of batch size 8 twice: name"),
    ),
    "no batch size": (EIGHT, re.compile("README.md: performance lines without a batch size before them: name the tool's own")),
    "half a block": ("batch8\n[e2e] throughputRate: 1, latency: 1\n", re.compile(r"README.md: no line '\[data read\]")),
    "an indented table": ("  | BS8 | 79.5 | 94.83 |\n", ({}, [("its table, BS8", 79.5, 94.83)])),
    "a table with % signs": ("| bs8 | 79.5% | 94.83 % |\n", ({}, [("its table, BS8", 79.5, 94.83)])),
    "an accuracy of 795": ("| BS8 | 795 | 94.83 |\n", re.compile("README.md: an accuracy of 795 %: expected 0 to 100")),
    "a result.json of 1,000 classes": (result_json(1000), ({}, [("its result.json", 71.0, 75.0)])),
    "a result.json of 3 classes": (f"  {result_json(3)}", ({}, [("its result.json", 71.0, 73.0)])),
    "a table of 3,000 digits": (
        f"| BS8 | {'9' * 3000} | 94.83 |\n",
        re.compile("README.md: an accuracy of 9+…9+ %: expected 0 to"),
    ),
    "a result.json above 100 %": (
        result_json(5).replace("71", "171"),
        re.compile("README.md: an accuracy of 171 %: expected 0"),
    ),
    "a result.json without numbers": (
        result_json(5).replace("71", "high"),
        re.compile("README.md: a result.json in it cannot be"),
    ),
    "a line of spaces behind a batch size": (f"bs batch{' ' * 100_000}\n| BS8 | 1{' ' * 100_000}\n", ({}, [])),
    "3,000 titles in a line": ('{"title" "Top1 accuracy"' * 3000, re.compile("README.md: a result.json in it cannot be read")),
    "a damaged result.json": (result_json(5).replace("Top5", "Top6"), re.compile("README.md: a result.json in it cannot be")),
    "a deep result.json": (
        '{"value": ' + "[" * 100_000 + '"Top1 accuracy"}',
        re.compile("README.md: a result.json in it cannot be read"),
    ),
    "100,000 blank lines": ("\n" * 100_000, ({}, [])),
}


@pytest.mark.parametrize("what", RECIPES)
def test_a_recipe(what: str) -> None:
    text, expected = RECIPES[what]
    check(expected, lambda: recipe(text))


STEMS = {  # an image's name -> the stem of its .bin and of its dumps
    "ILSVRC2012_val_00000001.JPEG": "ILSVRC2012_val_00000001",
    "a.b.JPEG": "a",
    "n01440764/a.b.JPEG": "n01440764__a",
    "001.Albatross/a.jpg": "001.Albatross__a",
    f"{NOT_UTF8}.jpg": NOT_UTF8,
}


def test_bins_and_dumps_are_named_as_the_recipes_programs_name_them(tmp_path: Path) -> None:
    names, logits = list(STEMS), np.linspace(-1, 1, 3 * len(STEMS), dtype=np.float32).reshape(-1, 3)
    names[2] = "n01440764/c.b.JPEG"  # not two dumps of one name for ais_bench
    tensors = np.zeros((len(names), 3, 2, 2), np.float32)
    info = benchmark.write_info(tmp_path / "dataset", names, tensors)
    stems = [STEMS.get(name, "n01440764__c") for name in names]
    listed = [line.split()[1] for line in info.read_text(errors="surrogateescape").splitlines()]
    assert listed == [f"dataset/bins/{stem}.bin" for stem in stems]
    assert all((tmp_path / path).is_file() for path in listed)
    dumps.write(tmp_path / "dumpOutput_device0", names, logits)
    for folder, end in (("dumpOutput_device0", "bin"), ("result/dumpOutput_device0", "txt")):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {f"{stem}_1.{end}" for stem in stems}
        np.testing.assert_array_equal(dumps.read(tmp_path / folder, names), logits)


def scores_of_the_recipe(folder: Path, labels: dict[str, int]) -> list[str]:
    """What the recipe's scorer prints of a folder of text dumps, of which it reads the first line split at spaces."""
    hits, files = np.zeros(5), list(folder.iterdir())
    for path in files:
        scores = np.array(path.read_text(encoding="utf-8").splitlines()[0].strip().split(" "), np.float32)
        order = np.argsort(-scores)[:5]
        label = labels[path.name.split(".")[0].rpartition("_")[0]]
        hits[: len(order)] += order == label
    return [f"{round(value * 100, 2)}%" for value in np.cumsum(hits)[: len(order)] / len(files)]


@pytest.mark.parametrize("classes", [2, 4, 5, 7])
def test_result_json_has_the_rows_of_the_recipes_scorer_on_our_text_dumps(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(size=(20, classes)).astype(np.float32), rng.integers(0, classes, 20)
    names = [f"val_{i}.JPEG" for i in range(20)]
    dumps.write(tmp_path / "dumpOutput_device0", names, logits)
    ranks = (np.take_along_axis(logits, labels[:, None], 1) < logits).sum(1)
    top = {f"top{k}_percent": float(100 * np.mean(ranks < k)) for k in range(1, 6)}
    rows = accuracy.seed_result({**top, "images": 20, "classes": classes})["value"]
    by_name = {f"val_{i}": int(label) for i, label in enumerate(labels)}
    assert [row["value"] for row in rows[2:]] == scores_of_the_recipe(tmp_path / "result" / "dumpOutput_device0", by_name)
    assert [row["key"] for row in rows[2:]] == [f"Top{k} accuracy" for k in range(1, min(classes, 5) + 1)]
