"""Pages in Chinese: nothing lost, nothing of the English that has changed since."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from runs import REPOSITORY, with_keys

from deit_helpers import open_run
from deit_helpers.report import html, language
from deit_helpers.run.lineage import NOTEBOOKS

ZH = REPOSITORY / "deit_helpers/report/zh"
SENTENCES = yaml.safe_load((ZH / "sentences.yaml").read_text(encoding="utf-8"))
CELLS = yaml.safe_load((ZH / "cells.yaml").read_text(encoding="utf-8"))


def markdown_cells() -> dict[str, str]:
    notebooks = [nbformat.read(path, as_version=4) for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
    return {cell.id: cell.source for node in notebooks for cell in node.cells if cell.cell_type == "markdown"}


def test_every_text_of_a_notebook_has_its_chinese_and_that_is_of_the_present_english() -> None:
    cells = markdown_cells()
    assert CELLS.keys() == cells.keys()
    stale = [name for name, row in CELLS.items() if row["of"] != hashlib.sha256(cells[name].encode()).hexdigest()[:8]]
    assert not stale, "translate them again, and write the new hash"


def test_the_chinese_of_a_cell_keeps_its_headings_and_its_code() -> None:
    for name, english in markdown_cells().items():
        chinese = CELLS[name]["zh"]
        assert re.findall(r"^#+ (?:\d\d)?", chinese, re.M) == re.findall(r"^#+ (?:\d\d)?", english, re.M), name
        assert sorted(re.findall(r"`[^`]+`", chinese)) == sorted(re.findall(r"`[^`]+`", english)), name


@pytest.mark.parametrize("english", SENTENCES)
def test_the_chinese_of_a_sentence_has_a_place_for_each_of_its_figures(english: str) -> None:
    used = set(map(int, re.findall(r"\{(\d)\}", SENTENCES[english])))
    assert used == set(range(english.count("{}")))


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("images", "图片"),
        ("12 of 300 crops as the model sees them, file: class", "模型所见的裁剪结果，300 张中的 12 张，文件：类别"),
        ("only the reference right", "仅参考结果答对"),
        ("expected: demo/demo.json", "期望：demo/demo.json"),
        ("precision fp16 → bf16", "精度 fp16 → bf16"),
        ("logits, reference", "logits，参考"),  # parts that are known one by one
        ("/blocks/blocks.0/Add_1", "/blocks/blocks.0/Add_1"),
        ("no such sentence", "no such sentence"),
        (
            "Of 300 images: lost 2.0 ± 0.5 points from deit; nothing significant from fp16.",
            "300 张图片中：因 deit 失去 2.0 ± 0.5 个百分点；fp16 没有显著影响。",
        ),
        (  # a figure ends where its sentence does
            "bs1: in 07, a small workload on all cores stood still for 5.1 % of its time. "
            "bs8: in 07, a small workload on all cores stood still for 6.2 % of its time.",
            "bs1：07 中，占满全部核心的小负载有 5.1 % 的时间停滞。bs8：07 中，占满全部核心的小负载有 6.2 % 的时间停滞。",
        ),
    ],
)
def test_a_text_in_chinese(english: str, chinese: str) -> None:
    assert language.chinese(english) == chinese


PAGE = (
    '<html lang="en"><style>.pass { images }</style><table aria-label="Files of this run; manifest.json has the full hashes">'
    '<td data-label="batches">images</td><td>a &lt;b&gt; &amp; c</td><svg viewBox="0 0 9 9"><text>images/s</text></svg></table>'
)


def test_a_chinese_page_changes_texts_and_spoken_words_but_no_markup_style_or_name() -> None:
    changed = {
        'lang="en"': 'lang="zh-CN"',
        ">images<": ">图片<",
        '"batches"': '"batch 数"',
        ">images/s<": ">张/秒<",
        "Files of this run; manifest.json has the full hashes": "本次运行的文件；完整哈希见 manifest.json",
    }
    expected = PAGE
    for english, chinese in changed.items():
        expected = expected.replace(english, chinese)
    assert language.translated_page(PAGE, "zh") == expected


def test_code_is_the_same_in_any_language() -> None:
    page = '<pre class="source"><code>images, labels = pass</code></pre><p>images</p><code>images</code>'
    assert language.translated_page(page, "zh") == page.replace("<p>images</p>", "<p>图片</p>")


def test_a_page_in_both_languages_has_the_english_first() -> None:
    page = language.translated_page(PAGE, "both")
    assert ">images 图片</td>" in page
    assert "<text>images/s 张/秒</text>" in page


def test_an_english_page_is_left_alone() -> None:
    assert language.translated_page(PAGE, "en") is PAGE


def test_cells_are_replaced_or_followed_by_their_chinese() -> None:
    name, english = next(iter(markdown_cells().items()))
    for chosen, text in (("zh", CELLS[name]["zh"]), ("both", f"{english}\n\n{CELLS[name]['zh']}"), ("en", english)):
        cell = nbformat.v4.new_markdown_cell(english)
        cell["id"] = name
        language.translated_cells([cell], chosen)
        assert cell.source == text


def test_hardly_a_sentence_of_a_whole_run_stays_english(finished_project: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_project / "reports/mini", tmp_path / "mini")
    run = with_keys(open_run(tmp_path / "mini/spec.yaml"), lang="zh")
    sentences, english = 0, []
    for notebook in ("01_export", "02_optimize", "03_convert", "04_preprocess", "05_infer", "06_accuracy", "07_perf", "report"):
        at = run.at(8) if NOTEBOOKS[notebook].per_batch else run
        page = BeautifulSoup(html.html(at.page(notebook), at).read_text(encoding="utf-8"), "html.parser")
        for element in page.select("style, pre, code, summary"):
            element.decompose()
        sentences += len(page.find_all(string=re.compile("[\u4e00-\u9fff]{4}")))
        texts = [
            " ".join(text.split())
            for text in page.find_all(string=re.compile(r"\b(?!batches at once)[a-z]{2,} [a-z]{2,} [a-z]{2,}"))
        ]
        english += [text for text in texts if not text.startswith("atc --framework")]
    assert sentences > 200
    assert len(english) <= 0.02 * sentences, "\n".join(sorted(set(english)))  # what a machine's load lets a page say varies
