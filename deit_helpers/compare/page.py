"""What compare shows of the content of its `compare.json`: a page, a test report (JUnit's XML), a comment (Markdown)."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from ..data import batches, sources
from ..errors import MOST_CHARACTERS, ArtifactError, one_line
from ..report.elements import Banner, Cell, Element, Gallery, Table
from ..report.words import notes as notes
from ..run.folder import Run

MOST = 24
Content = dict[str, Any]


class Page(tuple[Element, ...]):
    """Elements one below the other."""

    def _repr_html_(self) -> str:
        return "".join(element._repr_html_() for element in self)


def page(facts: Content, new: Run) -> Page:
    """All of it."""
    right, fast = (accuracies(facts), changed_images(facts, new)), (ratios(facts), operator_times(facts))
    return Page((verdict_line(facts), *right, *fast, differences(facts), checks(facts)))


def verdict_line(facts: Content) -> Banner:
    """The one line."""
    kind, _, text = facts["line"].partition(": ")
    return Banner(kind, f"{kind.capitalize()}.", one_line(f"{text[0].upper()}{text[1:]}.", MOST_CHARACTERS))


def accuracies(facts: Content) -> Table:
    """Acc@1 of every batch size on the same images, the interval that of the paired difference."""
    rows: list[list[Cell]] = []
    for row in facts["batch_sizes"]:
        now = row.get("accuracy", {})
        low, high = now.get("difference_ci95_points", (None, None))
        keys = ("images", "base_top1_percent", "top1_percent", "difference_points")
        counts = ("only_reference_right", "only_this_right", "changed")
        interval = None if low is None else f"{low:+.2f} to {high:+.2f}"
        rows.append([row["batch_size"], *map(now.get, keys), interval, *map(now.get, counts)])
    header = "batch size | images:, | base %:.2f | new %:.2f | points:+.2f | 95 % interval | lost | gained | answers changed"
    return Table("Acc@1 on the same images, new minus base; lost and gained: right in one of them only", header, rows)


def ratios(facts: Content) -> Table:
    """The rate of every batch size, and what each measurement says of it."""
    rows: list[list[Cell]] = []
    for row in (row for row in facts["batch_sizes"] if "throughput" in row):
        sides = [row["throughput"][side] for side in ("base", "new")]
        for of, (ratio, low, high) in row["throughput"]["ratios"].items():
            values = (side[of][0] if of in side else None for side in sides)
            rows.append([row["batch_size"], of, *values, ratio, f"{low:.3f} to {high:.3f}"])
    caption = "Median images/s of the call, and new over base as each has it; the check's interval spans all but the product"
    return Table(caption, "batch size | measured in | base:.1f | new:.1f | ratio:.3f | interval", rows)


def changed_images(facts: Content, new: Run) -> Gallery | Banner:
    """The images whose answer changed, at the batch size with the most; those that base alone has right first."""
    sizes = [(row["batch_size"], row["accuracy"]) for row in facts["batch_sizes"] if row.get("accuracy")]
    if not sizes:
        return Banner("note", "No answers compared.", "")
    size, most = max(sizes, key=lambda row: row[1]["changed"])
    shown, words = most["changed_images"][:MOST], sources.class_words(new)
    if not shown:
        return Banner("note", "No answer changed", f"on {most['images']:,} images.")
    names = [f"{one_line(row['image'].rpartition('/')[2])}: label {words[row['label']]}" for row in shown]
    answers = [{side: [words[row[key]]] for side, key in (("base", "base_answer"), ("new", "answer"))} for row in shown]
    counts = f"{len(shown)} of {most['changed']:,} changed answers of {most['images']:,} images"
    caption = f"{counts}, bs{size}: first lost, then never right, then gained"
    try:
        crops = batches.crops_at(new, [row["index"] for row in shown])
    except (ArtifactError, OSError):  # the run was carried here without them
        return Gallery(None, names, f"{caption}; the images are not here", answers)
    return Gallery(crops, names, caption, answers)


def operator_times(facts: Content) -> Table | Banner:
    """ms per batch of families and of the operators that take most."""
    rows: list[list[Cell]] = [
        [row["batch_size"], one["family"], one["op_type"] or "all", one["base_ms"], one["ms"], one["ms"] - one["base_ms"]]
        for row in facts["batch_sizes"]
        for one in row.get("operators", [])
    ]
    if not rows:
        return Banner("note", "No operators compared.", "Both runs need a profile: run notebooks/07_perf.ipynb.")
    caption = "Operators in ms per profiled batch: families, then the kinds that take most, without an interval"
    return Table(caption, "batch size | family | operator | base:.2f | new:.2f | difference:+.2f", rows)


def differences(facts: Content) -> Table:
    """Which two runs, and what else differs between them."""
    runs = {key: [facts[side][key] for side in ("base", "new")] for key in facts["base"]}
    of = {"run": runs, **facts["differences"]}
    rows = [[kind, key, *(one_line(value) for value in both)] for kind, keys in of.items() for key, both in keys.items()]
    return Table("The two runs, and what differs in spec, packages and machine", "of | what | base | new", rows)


def checks(facts: Content) -> Table:
    """Every check against its limit, the worst first."""
    rows = [[check["name"], one_line(check["text"], MOST_CHARACTERS), check["verdict"]] for check in facts["checks"]]
    failed = frozenset(i for i, row in enumerate(rows) if row[2] == "fail")
    caption = f"Checks; the verdict is the worst of them: {facts['verdict']}"
    return Table(caption, "check | result | verdict", rows, alarm=failed)


def junit(facts: Content) -> str:
    """A test case per check. An inconclusive one is skipped: the format has nothing between pass and failure."""
    verdicts = [check["verdict"] for check in facts["checks"]]
    counts = {"tests": len(verdicts), "failures": verdicts.count("fail"), "skipped": verdicts.count("inconclusive")}
    suite = ElementTree.Element("testsuite", {"name": "deit-report compare", **{key: str(n) for key, n in counts.items()}})
    for check in facts["checks"]:
        sides = one_line(f"{facts['base']['name']} against {facts['new']['name']}")
        case = ElementTree.SubElement(suite, "testcase", {"classname": sides, "name": check["name"]})
        tag = {"fail": "failure", "inconclusive": "skipped"}.get(check["verdict"], "system-out")
        said = ElementTree.SubElement(case, tag)
        text = one_line(check["text"], MOST_CHARACTERS)
        said.text = "\n".join([text, *(f"lost: {one_line(name)}" for name in check.get("lost", []))])
        said.attrib |= {} if tag == "system-out" else {"message": text}
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def comment(facts: Content) -> str:
    """For a pull request: the verdict, a table of the checks, which runs, the first lost images."""
    lost = sorted({name for check in facts["checks"] for name in check.get("lost", [])})[:5]
    lines = [f"**{_markdown(facts['line'])}**", "", "| check | verdict | result |", "|---|---|---|"]
    lines += [f"| {' | '.join(_markdown(check[key]) for key in ('name', 'verdict', 'text'))} |" for check in facts["checks"]]
    sides = {side: [str(facts[side][key]) for key in ("folder", "what", "git_commit")] for side in ("base", "new")}
    lines += ["", *(f"- {side}: {_markdown(', '.join(texts))}" for side, texts in sides.items())]
    return "\n".join([*lines, *([f"- lost, the first: {', '.join(map(_markdown, lost))}"] if lost else []), ""])


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(one_line(text, MOST_CHARACTERS), quote=False))
