"""`deit-report verify`: every file of a run is hashed, every figure computed and every page drawn again from raw predictions.

It works on a copy of links in a temporary folder, so the run stays as it is, and needs no device, image or checkpoint. A page's
cells are evaluated in this process, but only those of this version's notebooks: what a stranger sent is data.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import bs4
import nbformat
import numpy as np
import pandas as pd

from .. import files
from ..ascend import benchmark
from ..data import batches
from ..delivery import bundle
from ..errors import ArtifactError, DeitError, one_line
from ..metrics import latency, operators
from ..metrics.classification import compare
from ..report import html, index
from ..report.words import notes
from ..run import records
from ..run.folder import Run, html_path, notebook_source
from ..run.hashing import code_sha256, sha256
from ..run.lineage import NOTEBOOKS, PAGE_CODE
from ..run.manifest import all_stages, artifacts
from ..stages import accuracy
from .rules import QUOTED

_BROKEN = (DeitError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # what bad files lead to
_MAKING = {"stages", "open_run", "write_manifest"}  # a cell's statements with these names make files
_LAST_DIGITS, _ROUNDED = 1e-9, 1e-5  # relative: of another machine; of what CSV files hold with six digits
_NOT_AGAIN = (
    "figures of 01 to 04, waterfall and rehearsal; of 07 the model alone, the profiler's ms and the peak: without samples"
)
_PICTURE = ("picture", "")
Texts = list[tuple[str, str]]  # where on a page, and what


@dataclass
class Tally:
    """What a check found: how much it compared, what differs, and what cannot be compared here.

    Of a run that comes in the small file of `pack`, `left_out` are files that are not in it. Answers stand for logits then, and
    all is done for two `seeds`, with other distances between them: what differs between the seeds is what answers do not tell.
    """

    left_out: dict[str, int]
    count: int = 0
    wrong: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> tuple[int, ...]:
        return (0, 1) if self.left_out else (0,)

    def compare(self, where: str, found: Any, says: str, expected: Any, tolerance: float = 0.0) -> None:
        """Compare every value of `expected` with that at the same keys in `found`; keep a sentence where they differ."""
        values = dict(_flat(found))
        for key, right in _flat(expected):
            self.count, value = self.count + 1, values.get(key)
            alike = isinstance(value, float) and isinstance(right, float) and math.isclose(value, right, rel_tol=tolerance)
            if value != right and not alike:
                self.wrong.append(f"{where}: {key} is {value!r}, {says} {right!r}")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside a JSON value, with the keys that lead to it, such as `reference.top1_percent`."""
    if isinstance(value, (dict, list, tuple)):
        for name, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def verify(given: Path, resolve: Callable[[Path], Run], say: Callable[[str], None]) -> int:
    """Check a run folder or a file of `pack`, say line by line what was found, and return how much differs.

    Args:
        resolve: opens a run by its `spec.yaml`.

    Raises:
        DeitError: what is given is no run.
    """
    checks = {"hashes of files": _files, "records, spec and manifest": _lineage}
    checks |= {"figures, from logits, labels and samples": _figures, "texts of pages, drawn again": _pages}
    with tempfile.TemporaryDirectory() as temporary:
        place, left_out, locks = Path(temporary).resolve(), dict[str, int](), shutil.ignore_patterns("*.lock")
        if given.is_file():
            folder, left_out = bundle.unpack(given, place)
        else:
            folder = shutil.copytree(given, place / given.name, copy_function=os.symlink, ignore=locks)
        if not (folder / "meta").is_dir():
            raise ArtifactError(
                f"{given}: no finished run, it has no records (meta/): give a folder that `deit-report run` made"
            )
        run = resolve(folder / "spec.yaml")
        run = dataclasses.replace(run, root=place) if given.is_file() else run  # expected figures come with the file
        tallies = {what: Tally(left_out) for what in checks}
        for what, tally in tallies.items():
            try:
                checks[what](run, tally)
            except _BROKEN as err:
                tally.wrong.append(f"{what}: cannot go on: {type(err).__name__}: {err}")
            for line in tally.wrong:
                say(f"mismatch     {one_line(line, 400)}")
            say(f"{'ok' if not tally.wrong else 'not ok':11}  {what}: {tally.count:,} compared")
    for line in (line for tally in tallies.values() for line in tally.unknown):
        say(f"not checked  {one_line(line, 400)}")
    wrong = sum(len(tally.wrong) for tally in tallies.values())
    say(f"{wrong} mismatches: {given}" if wrong else f"verified: {given}")
    return wrong


def _files(run: Run, tally: Tally) -> None:
    for path in sorted((run.folder / "meta").glob("*.json")):
        record, where = files.read_json(path), f"meta/{path.name}"
        for name, facts in record.get("outputs", {}).items():
            if name not in tally.left_out:
                found = sha256(run.folder / name) if (run.folder / name).is_file() else "that of no file"
                tally.compare(name, {"sha256": found}, f"{where} says", {"sha256": facts["sha256"]})
        if path.name.startswith("page_") and "outputs" not in record:
            tally.unknown.append(f"the hash of a page whose step stopped: {where} has none")
    if left_out := tally.left_out:
        names = ", ".join(sorted(left_out, key=lambda name: -left_out[name]))
        tally.unknown.append(f"{len(left_out)} files that are not in the small file: {names}")


def _lineage(run: Run, tally: Tally) -> None:
    manifest, absent = files.read_json(run.folder / "manifest.json"), {"source"}
    for stage, at in all_stages(run):
        record, where = records.read_record(at, stage), at.relative(records.record_path(at, stage))
        if record:
            absent |= _compare_record(at, stage, record, tally)
            for name, told in artifacts(record).items() if manifest else ():
                tally.compare(f"manifest.json: {name}", manifest["artifacts"].get(name, {}), f"{where} says", told)
        elif here := [at.relative(path) for name in records.outputs(at, stage) if (path := at.file(name)).exists()]:
            lost = records.record_path(at, stage).exists() or manifest.get("artifacts", {}).keys() & here
            (tally.wrong if lost else tally.unknown).append(f"{where}: no sound record of {', '.join(here)}")
    tally.compare("spec.yaml", run.spec.model_dump(mode="json"), "manifest.json says", manifest.get("spec", {}))
    tally.unknown.append(f"inputs that are not here, or known by name, size and time alone: {', '.join(sorted(absent))}")


def _compare_record(run: Run, stage: str, record: dict[str, Any], tally: Tally) -> set[str]:
    """Compare a record with the spec and with the records of what it was made from; returns the inputs that are not here."""
    if record.get("imported_from"):
        return set()
    now, where = records.key(run, stage, strict=False), run.relative(records.record_path(run, stage))
    absent = {name for name, value in now["inputs"].items() if value is None and record["inputs"].get(name)}
    for kind, here in (("spec", "spec.yaml says"), ("inputs", "here it is")):
        known = {name: value for name, value in now[kind].items() if name not in absent}
        tally.compare(f"{where}: {kind}", record[kind], here, known)
    return absent


def _taken(run: Run, seed: int) -> Run:
    """The copy of the run with logits of a seed where it has but answers, and with records that hold for its files as they are.

    Where they do not hold, this was said; what follows from it is found by computing with these files.
    """
    bundle.stand_in(run.folder, seed)
    for stage, at in all_stages(run):
        if record := records.read_record(at, stage):
            made = {name: facts for name, facts in record["outputs"].items() if (run.folder / name).exists()}
            outputs = {name: facts | {"sha256": sha256(run.folder / name)} for name, facts in made.items()}
            now = {"outputs": outputs, "spec": run.spec.model_dump(mode="json"), "inputs": {}, "imported_for": {}}
            files.write_json(records.record_path(at, stage), record | now)
    return run


def _figures(run: Run, tally: Tally) -> None:
    without: tuple[str, ...] = ()
    if run.spec.real_labels and not (run.root / run.spec.real_labels).is_file():
        run, without = run.replace(real_labels=None), ("real",)
        tally.unknown.append(f"Acc@1 by ReaL labels: {run.spec.real_labels} is not here")
    scored = [at.file(name) for at in run.at_each() for name in (*records.outputs(at, "score"), "agreement")]
    stored = {path: _loaded(path) for path in scored if path.exists()}
    first, *others = [_scored_again(_taken(run, seed)) for seed in tally.seeds]
    for path, value in ((path, value) for path, value in stored.items() if path in first):
        name, before, said = run.relative(path), len(tally.wrong), dict(_flat(value))
        open_keys = [key for key in first[path] if any(other[path][key] != first[path][key] for other in others)]
        tally.unknown += [f"{name}: what only logits tell: {', '.join(open_keys)}"] if open_keys else []
        right = {
            key: first[path].get(key) for key in said | first[path] if key not in open_keys and not key.startswith(without)
        }
        tally.compare(name, said, "computed again it is", right, _LAST_DIGITS)
        if path.suffix == ".json" and (open_keys or len(tally.wrong) == before):
            files.write_json(path, value)  # pages are drawn of it; where it is wrong, of what was computed
    for at in run.at_each():
        for path, figures in ((at.file("infer"), _of_05), (at.file("perf"), _of_07)):
            if value := files.read_json(path):
                tally.compare(run.relative(path), value, "by its samples it is", dict(figures(at)), _ROUNDED)
    tally.unknown.append(_NOT_AGAIN)


def _scored_again(run: Run) -> dict[Path, dict[str, Any]]:
    """What 06 makes of logits and labels, and 05 of two sides' logits: values by key, by file."""
    sizes = [at for at in run.at_each() if records.read_record(at, "score")]
    for at in sizes:
        records.forget(at, "score")
    for at in sizes:
        accuracy.score(at)
    scored = [at.file(name) for at in sizes for name in records.outputs(at, "score")]
    figures = {path: dict(_flat(_loaded(path))) for path in scored}
    for at in (at for at in run.at_each() if at.file("agreement").exists() and at.file("logits").exists()):
        figures[at.file("agreement")] = compare(np.load(at.file("reference")), np.load(at.file("logits")))
    return figures


def _loaded(path: Path) -> dict[str, Any]:
    """The content of a JSON file, or the columns of a CSV file."""
    if path.suffix == ".json":
        return files.read_json(path)
    return pd.read_csv(path, keep_default_na=False, encoding_errors="surrogateescape").to_dict("list")


def _of_05(run: Run) -> Iterator[tuple[str, Any]]:
    """What `infer.json` must say of the samples in `latency.csv`."""
    table, infer = pd.read_csv(run.file("latency")), run.read("infer")
    if len(table):
        yield "latency_ms", latency.latency_ms(table["latency_ms"])
    if not infer.get("shards"):
        return  # a vendor's tool says the rest, without samples
    wall_s, count = sum(shard["seconds"] for shard in infer["shards"]), int(table["images"].sum())
    full, seconds = table[table["images"] == run.size] if len(table) > 1 else table, table.filter(like="_ms").sum() / 1000
    spent = {name: wall_s if name == "e2e" else seconds[f"{name.removeprefix('data ')}_ms"] for name in benchmark.ROWS}
    yield from (("images", count), ("batches", len(table)), ("e2e_images_per_s", count / wall_s))
    alone = 1000 * float(full["images"].sum() / full["interface_ms"].sum())
    yield from (("interface_images_per_s", alone), ("e2e_efficiency", count / wall_s / alone))
    yield "stages", [{"name": name, "images_per_s": float(count / s), "seconds": float(s)} for name, s in spent.items()]


def _of_07(run: Run) -> Iterator[tuple[str, Any]]:
    """What `perf.json` must say of `infer.json` and `profile.csv`, and its rates of each other."""
    perf, infer, table = run.read("perf"), run.read("infer"), pd.read_csv(run.file("profile"))
    yield from ((key, infer[key]) for key in QUOTED if key in perf and key in infer)
    pure, flops, peak, rate = perf["pure"], perf["flops_per_image"], perf["peak_flops_per_s"], infer["interface_images_per_s"]
    yield "images_per_s", rate
    if pure:
        rate = 1000 * run.size / pure["latency_ms"]["p50"]
        yield from (("pure", {"images_per_s": rate}), ("e2e_of_pure", infer["e2e_images_per_s"] / rate))
    if peak and flops:
        yield "utilisation_percent", 100 * rate * flops / peak
    if len(table):
        yield "operators_ms", float(table["total_us"].sum()) / perf["profiled_batches"] / 1000
        yield "families", {name: {"share_percent": share} for name, share in operators.family_shares(table).items()}
        yield "unattributed", operators.unattributed(table)


def _pages(run: Run, tally: Tally) -> None:
    runs = [(name, at) for name in NOTEBOOKS for at in run.at_each(NOTEBOOKS[name].per_batch) if at.page(name).exists()]
    pages = {page: (name, at) for name, at in runs if (page := html_path(at.page(name))).exists()}
    shown = {page: sections(page) for page in pages if run.relative(page) not in tally.left_out}
    first, *others = [{page: _drawn(*pages[page], tally) for page in shown} for seed in tally.seeds if _taken(run, seed)]
    later = {page: _said_later(at) for page, (_, at) in pages.items()}
    skipped, has_crops = list[str](), False
    with contextlib.suppress(*_BROKEN):
        has_crops = len(batches.crops_at(run, [0])) == 1
    for page, parts in shown.items():
        for i, (texts, again) in enumerate(zip_longest(parts, first[page], fillvalue=list[tuple[str, str]]())):
            if (_PICTURE in texts and not has_crops) or any(other[page][i] != again for other in others):
                skipped.append(f"{run.relative(page)} part {i}")
            else:
                _compare_texts(run.relative(page), texts, again, later[page], tally)
    tally.unknown += [f"pictures or distances of logits, which are not here: {', '.join(skipped)}"] if skipped else []
    ours = code_sha256(PAGE_CODE)
    if any(files.read_json(path).get("helpers", ours) != ours for path in (run.folder / "meta").glob("page_*.json")):
        tally.unknown.append("the version of the pages: another than this drew some, and may have used other words")


def _said_later(run: Run) -> set[str]:
    """Texts of banners that a page shows once the run has a file of a later step, or was compared with another."""
    banners = (*notes(run).items, *index.since(run).items)
    return {"Open page", *(text for banner in banners for text in (banner.title, banner.text))}


def _drawn(notebook: str, run: Run, tally: Tally) -> list[Texts]:
    """The sections of a page of the copy, its cells evaluated again but for what makes files."""
    known = {"", *(cell.source for cell in html.read(notebook_source(notebook)).cells)}
    page, node = run.page(notebook), html.read(run.page(notebook))
    names = {"run": run, "manifest": files.read_json(run.folder / "manifest.json")}
    for cell in node.cells:
        if cell.source not in known and "injected-parameters" not in cell.metadata.get("tags", []):
            line = f"{run.relative(page)}: a cell that is not in notebooks/{notebook}.ipynb: {cell.source!r}"
            tally.wrong += [line] if line not in tally.wrong else []
        elif cell.cell_type == "code" and cell.source in known:
            value = _value(cell.source, names)
            for output in (output for output in cell.outputs if "text/html" in output.get("data", {})):
                output["data"]["text/html"] = value
    files.write_text(page, nbformat.writes(node))
    return sections(html.html(page, run))


def _value(source: str, names: dict[str, Any]) -> str:
    """As HTML, what a cell ends in without its statements that make files, or the error that it ends in."""
    kept = [one for one in ast.parse(source).body if not _MAKING & {n.id for n in ast.walk(one) if isinstance(n, ast.Name)}]
    last = kept.pop() if kept and isinstance(kept[-1], ast.Expr) else None
    try:
        exec(compile(ast.Module(kept, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
        return "" if value is None else str(value._repr_html_())
    except _BROKEN as err:
        return f"<p>{type(err).__name__}: {err}</p>"


def sections(page: Path) -> list[Texts]:
    """The texts of a page, part by part, first what is outside of all. Of a drawing, what it says to who cannot see it."""
    soup = bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for hidden in soup.select("svg, style, .source, header nav, main > nav"):  # links are of the pages that lie beside it
        hidden.decompose()
    found = []
    for part in (soup, *[part.extract() for part in soup.select(".code, .text")]):
        strings = [string for string in part.find_all(string=True) if type(string) is bs4.element.NavigableString]
        texts = [(_place(string), text) for string in strings if (text := " ".join(string.split()))]
        texts += [("text alternative", str(drawing["aria-label"])) for drawing in part.select("[role=img]")]
        found.append(texts + [_PICTURE] * len(part.select("img")))
    return found


def _place(text: Any) -> str:
    """Where on a page a text stands: in a table by its caption, row and column."""
    cell, table = text.find_parent(["td", "th"]), text.find_parent("table")
    if cell is None:
        return next((name for name in ("figcaption", "caption", "li", "p", "strong", "div") if text.find_parent(name)), "text")
    heading = table.select("thead th")[len(cell.find_previous_siblings(["td", "th"])) :][:1]
    named = {"table": table.caption, "row": cell.parent.find(["td", "th"]), "column": heading[0] if heading else None}
    return ", ".join(f"{name} {one_line(part.get_text(), 60)!r}" for name, part in named.items() if part)


def _compare_texts(page: str, shown: Texts, drawn: Texts, later: set[str], tally: Tally) -> None:
    """Name what differs; banners of `later` may be missing on a page that was drawn before the run knew of them."""
    before, now = ([text for _, text in side] for side in (shown, drawn))
    tally.count += len(now)
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
        if kind == "insert" and later.issuperset(now[k:m]):
            tally.unknown.append(f"{page}: whether it should say {now[k]!r}, as it does when it is drawn now")
            continue
        for (place, old), (other, new) in zip_longest(shown[i:j], drawn[k:m], fillvalue=("", "")) if kind != "equal" else ():
            alike = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
            old, new = (f"{'…' if alike > 40 else ''}{text[alike - 40 if alike > 40 else 0 :][:120]}" for text in (old, new))
            tally.wrong.append(f"{page}: {place or other}: shown is {old!r}, drawn again it is {new!r}")
