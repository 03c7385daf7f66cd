"""Pages in Chinese, or in both languages: `zh/cells.yaml` has the notebooks' text by cell, `zh/sentences.yaml` what pages say.

A sentence may hold `{}` where a figure or a name stands; what stands there is translated in turn. What neither file knows stays
English: names of files, operators and packages are the same in both languages.
"""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path
from typing import Any

ENGLISH, CHINESE, BOTH = "en", "zh", "both"
_FOLDER = Path(__file__).parent / "zh"
_MARKUP = re.compile(r"(<style.*?</style>|<pre.*?</pre>|<code.*?</code>|<[^>]*>)", re.S)  # and what is the same in any language
_SPOKEN = re.compile(r'((?:aria-label|alt|title|data-label)=")([^"]*)(")')
_BETWEEN = re.compile("(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")  # spaces, which Chinese has beside other scripts only
_JOINTS = ((". ", "。"), ("; ", "；"), (": ", "："), (", ", "，"))  # of parts that are known one by one, in this order


@functools.cache
def _catalogue(name: str) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) or {}


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Sentences with `{}`: first those that begin with a word, in each case those with most words of their own first."""
    known = [pair for pair in _catalogue("sentences").items() if "{}" in pair[0]]
    known.sort(key=lambda pair: (pair[0].startswith("{}"), -len(pair[0])))
    # A semicolon parts clauses, a full stop sentences, which are translated one by one where the whole is not known.
    return [(re.compile(r"((?:(?!\. )[^;])+?)".join(map(re.escape, english.split("{}")))), other) for english, other in known]


@functools.cache
def chinese(text: str) -> str:
    """A text of a page in Chinese; unchanged where nothing in it is known."""
    words = " ".join(text.split())
    if words in (sentences := _catalogue("sentences")):
        return str(sentences[words])
    for pattern, template in _patterns():
        if match := pattern.fullmatch(words):
            return _BETWEEN.sub("", template.format(*map(chinese, match.groups())))
    if words.endswith("."):
        ending = chinese(words[:-1])
        return f"{ending}。" if ending != words[:-1] else text
    for joint, sign in _JOINTS:
        parts = words.split(joint)
        translated = list(map(chinese, parts)) if len(parts) > 1 else parts
        if translated != parts:
            return sign.join(translated)
    return text


def translated_cells(cells: list[Any], language: str) -> None:
    """Put the Chinese text of a notebook's markdown cells in the place of the English, or below it."""
    for cell in cells if language != ENGLISH else ():
        known = _catalogue("cells").get(cell.get("id"))
        if known and cell.cell_type == "markdown":
            cell.source = f"{cell.source}\n\n{known['zh']}" if language == BOTH else known["zh"]


def translated_page(page: str, language: str) -> str:
    """An HTML page with its texts, and those that are spoken in place of a picture, in Chinese or in both languages."""
    if language == ENGLISH:
        return page

    def say(escaped: str) -> str:
        english = html.unescape(escaped).strip()
        other = chinese(english)
        if other == english:
            return escaped
        return html.escape(f"{english} {other}" if language == BOTH else other)

    def spoken(match: re.Match[str]) -> str:
        return f"{match[1]}{say(match[2])}{match[3]}"

    parts = _MARKUP.split(page.replace('<html lang="en">', '<html lang="zh-CN">', 1))
    return "".join(_SPOKEN.sub(spoken, part) if part.startswith("<") else say(part) if part.strip() else part for part in parts)
