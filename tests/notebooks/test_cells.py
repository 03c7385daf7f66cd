"""The cells of every notebook: what the last says to try works, names are shown as text, pages are as large for any number
of images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from runs import REPOSITORY, copy_of

from deit_helpers import files
from deit_helpers.data.sources import write_index
from deit_helpers.report.elements import Element
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy, localize, rehearsal, waterfall

NOTEBOOKS = {path.stem: json.loads(path.read_text())["cells"] for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}
SCRIPT = """<script>alert("1" + '2')"""
NAME = f"{SCRIPT} & <b> | 中文\n$x^$ "  # `$x^$` is no formula
NAMED = {"name", "device", "version", "model", "source", "reason", "checkpoint", "precision", "backend", "file", "purpose",
         "cpu", "system", "command_line", "computed_by", "right_node", "profile_reason", "peak_source", "keep"}  # fmt: skip


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def one_liners(notebook: str) -> list[str]:
    return re.findall(r"^- `([^`]+)`:", source(NOTEBOOKS[notebook][-1]), re.MULTILINE)


def opened(notebook: str, run: Run) -> dict[str, Any]:
    """The names that a notebook's first two code cells define, on this run at batch size 4."""
    parameters, setup = (source(cell) for cell in NOTEBOOKS[notebook][1:3])
    names: dict[str, Any] = {}
    path = str(run.folder / "spec.yaml")
    given = re.sub("(?m)^(spec|base|new) = .*", lambda match: f"{match[1]} = {path!r}", parameters)
    exec(f"{given.replace('= 8', '= 4')}\n{setup}", names)
    return names


def elements(notebook: str, run: Run) -> Iterator[Element]:
    """What the cells of a notebook end in, but for the calls of stages."""
    names = opened(notebook, run)
    for cell in NOTEBOOKS[notebook][3:]:
        if cell["cell_type"] == "code":
            *lines, last = [line for line in source(cell).splitlines() if not line.startswith("stages.")] or ["None"]
            exec("\n".join(lines), names)
            value = eval(last, names)
            if value is not None:
                yield value


@pytest.fixture(scope="module")
def run(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the finished run with the pages that are asked for or made by hand."""
    keys: dict[str, Any] = {"waterfall": ["onnx", "device"], "rehearse": True}
    run = copy_of(finished, tmp_path_factory.mktemp("tried"), **keys)
    run.save_spec()
    for stage in (waterfall.waterfall, rehearsal.rehearsal, localize.suspects):
        stage(run)
    localize.localize(run, "onnx", "edited")
    return run


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_what_a_notebook_says_to_try_works(notebook: str, run: Run) -> None:
    assert source(NOTEBOOKS[notebook][-1]).startswith("## Try:\n")
    assert 2 <= len(one_liners(notebook)) <= 4
    names = opened(notebook, run)
    for code in one_liners(notebook):
        value = eval(code, names)
        assert value is not None, code
        getattr(value, "_repr_html_", lambda: None)()


def renamed(value: Any, key: str = "") -> Any:
    """A JSON value with NAME before every text that is a name."""
    if isinstance(value, dict):
        return {key: renamed(child, key) for key, child in value.items()}
    if isinstance(value, list):
        return [renamed(child, key) for child in value]
    return f"{NAME}{value}" if isinstance(value, str) and key in NAMED else value


@pytest.fixture
def hostile(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose images, classes, model, devices, operators, nodes and reasons have NAME in their names."""
    copy = copy_of(run, tmp_path, batch_sizes=[4])
    for path in copy.folder.rglob("*.json"):
        if path.parent.name != "meta":
            files.write_json(path, renamed(files.read_json(path)))
    write_index(copy.file("index"), {f"{NAME}{i % 3}/{NAME}{i}.jpg": i % 3 for i in range(13)})
    profile = pd.read_csv(copy.file("profile"))
    profile.assign(op_type=NAME + profile["op_type"], name=NAME + profile["name"]).to_csv(copy.file("profile"), index=False)
    facts = copy.read("preprocess")
    facts |= {"skipped": [{"name": NAME, "reason": NAME}], "left_out": [{"kind": NAME, "count": 1, "names": [NAME]}]}
    files.write_json(copy.file("preprocess"), facts)
    np.save(copy.file("logits"), -np.load(copy.file("logits")))
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)  # the files planted here have no records
    copy.replace(model=NAME, checkpoint=f"{NAME}.pth", images=NAME).save_spec()
    return copy


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_names_are_shown_as_text(notebook: str, hostile: Run) -> None:
    pages = [BeautifulSoup(element._repr_html_(), "html.parser") for element in elements(notebook, hostile)]
    assert pages
    assert any(SCRIPT in page.get_text() for page in pages)
    for page in pages:
        assert page.find(["script", "b"]) is None
        assert not [name for tag in page.find_all(True) for name in tag.attrs if name.startswith("on")]


def test_class_names_stand_in_the_chart_as_they_are(hostile: Run) -> None:
    (chart,) = (element for element in elements("06_accuracy", hostile) if hasattr(element, "drawing"))
    texts = [text.text for text in BeautifulSoup(chart.drawing(), "html.parser").find_all("text")]
    assert sum("中文" in text and "$x^$" in text for text in texts) >= 3


def of_noise(finished: Run, folder: Path, count: int) -> Run:
    """A run of so many images of 8 × 8 pixels whose logits are noise; another tenth was skipped."""
    copy, generator = copy_of(finished, folder, batch_sizes=[4]), np.random.default_rng(0)
    for name in ("logits", "reference"):
        np.save(copy.file(name), generator.normal(0, 2, (count, 3)).astype(np.float32))
    np.save(copy.file("images"), generator.integers(0, 255, (count, 8, 8, 3), np.uint8))
    write_index(copy.file("index"), {f"{i % 3}/{i:08d}.jpg": i % 3 for i in range(count)})
    skipped = [{"name": f"0/{i:08d}.jpg", "reason": "damaged"} for i in range(count // 10)]
    files.write_json(copy.file("preprocess"), {**copy.read("preprocess"), "images": count, "skipped": skipped})
    latency = pd.read_csv(copy.file("latency")).iloc[[0] * (count // 4)]
    latency.assign(latency_ms=generator.normal(20, 1, len(latency))).to_csv(copy.file("latency"), index=False)
    files.write_json(copy.file("accuracy"), accuracy._score.__wrapped__(copy))  # type: ignore[attr-defined]
    copy.save_spec()
    return copy


@pytest.fixture(scope="module")
def few_and_many(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return [of_noise(finished, tmp_path_factory.mktemp("noise"), count) for count in (500, 50_000)]


@pytest.mark.parametrize("notebook", ["04_preprocess", "05_infer", "06_accuracy", "07_perf", "report"])
def test_a_page_is_as_large_for_50000_images_as_for_500(
    notebook: str, few_and_many: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)  # these files have no records
    few, many = (sum(len(element._repr_html_()) for element in elements(notebook, run)) for run in few_and_many)
    assert many == pytest.approx(few, rel=0.1)
