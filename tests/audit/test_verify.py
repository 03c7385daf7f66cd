"""A run is verified fresh, copied and packed small; whatever was changed since is found and named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from recorded import PUBLISHED
from runs import opened, write_spec

from deit_helpers import imported
from deit_helpers.__main__ import main
from deit_helpers.audit.verify import verify
from deit_helpers.delivery import bundle
from deit_helpers.explore import OpenedRun
from deit_helpers.metrics import latency
from deit_helpers.metrics.classification import label_ranks
from deit_helpers.run.folder import Run

PAGE = "bs1/06_accuracy"


def verified(given: Path) -> tuple[int, str]:
    """How much differs, and what is said."""
    said: list[str] = []
    return verify(given, OpenedRun.resolve, said.append), "\n".join(said)


def state(folder: Path) -> dict[str, tuple[str, int]]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.log")  # others run it, too
    return {str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in paths}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def folder(finished_project: Path, tmp_path: Path) -> Path:
    """A copy of a finished run on another host, without its images, and of its pages with that of 06 at batch size 1 alone."""
    copy = tmp_path / "mini"
    shutil.copytree(finished_project / "reports/mini", copy, ignore=shutil.ignore_patterns("images", "report.ipynb"))
    for path in [path for path in copy.rglob("0*_*.*") if str(path.with_suffix("").relative_to(copy)) != PAGE]:
        path.unlink()
    for path in copy.glob("meta/page_0*.json"):
        if path.stem != "page_06_accuracy_bs1":
            path.unlink()
    return copy


def small_file(folder: Path, path: Path) -> Path:
    """What `pack --audit` makes of a run folder."""
    bundle.pack_audit(Run.resolve(folder / "spec.yaml"), path)
    return path


def test_a_run_passes_by_the_command_line_and_stays_as_it_was(finished_project: Path) -> None:
    run = finished_project / "reports/mini"
    before = state(run)
    result = CliRunner().invoke(main, ["verify", str(run)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, f"verified: {run}"), result.output
    assert state(run) == before
    assert "hashes of files: 49 compared" in result.output


def test_a_copy_and_its_small_file_pass_and_say_what_they_cannot_tell(folder: Path, tmp_path: Path) -> None:
    assert verified(folder)[0] == 0
    path = tmp_path / "mini.audit.tar.xz"
    result = CliRunner().invoke(main, ["pack", "--audit", str(folder), "-o", str(path)])
    assert (result.exit_code, path.stat().st_size < bundle.MOST_BYTES) == (0, True), result.output
    wrong, said = verified(path)
    assert wrong == 0, said
    assert "not checked  bs1/accuracy.json: what only logits tell: reference.max_abs_diff" in said
    assert re.search(r"not checked  \d+ files that are not in the small file: dataset/images.npy", said)
    with tarfile.open(path) as archive:
        assert not [name for name in archive.getnames() if name.endswith((".onnx", ".pth", "/logits.npy", "/images.npy"))]


def change_a_logit(folder: Path) -> None:
    logits = np.load(folder / "bs1/logits.npy")
    path = folder / "bs1/logits.npy"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    assert (np.load(path) != logits).sum() == 1


def change_a_label(folder: Path) -> None:
    name, label = (folder / "dataset/index.csv").read_text().splitlines()[-1].split(",")
    replaced(folder / "dataset/index.csv", f"{name},{label}", f"{name},{(int(label) + 1) % 10}")


def change_a_cell(folder: Path) -> None:
    text = (folder / f"{PAGE}.html").read_text()
    percent = re.findall(r'<td class="number"[^>]*>(\d+\.\d\d)</td>', text)[0]
    replaced(folder / f"{PAGE}.html", f">{percent}<", ">99.99<")


def change_a_latency(folder: Path) -> None:
    path = folder / "bs1/latency.csv"
    line = path.read_text().splitlines()[3]
    values = line.split(",")
    replaced(path, line, ",".join([*values[:-2], "0.001000", values[-1]]))


def change_a_version(folder: Path) -> None:
    path = folder / "meta/infer_bs1.json"
    record = json.loads(path.read_text())
    record["packages"]["onnxruntime"] = "9.9"
    path.write_text(json.dumps(record))


CHANGES: dict[Callable[[Path], None], list[str]] = {
    change_a_logit: [r"bs1/logits\.npy: sha256 is '\w{64}', meta/infer_bs1\.json says '\w{64}'"],
    change_a_label: [
        r"dataset/index\.csv: sha256 is '\w{64}', meta/preprocess\.json says",
        r"bs1/accuracy\.json: top\d_percent is [\d.]+, computed again it is",
        rf"{PAGE}\.html: table 'Accuracy in percent.*', row 'onnxruntime fp32', column 'Acc@\d': shown is '[\d.]+', drawn",
    ],
    change_a_cell: [
        rf"{PAGE}\.html: sha256 is '\w{{64}}', meta/page_06_accuracy_bs1\.json says",
        rf"{PAGE}\.html: table 'Accuracy in percent.*', row 'onnxruntime fp32', column 'Acc@1': shown is '99.99', drawn again",
    ],
    change_a_latency: [
        r"bs1/latency\.csv: sha256 is '\w{64}', meta/infer_bs1\.json says",
        r"bs1/infer\.json: latency_ms\.mean is [\d.]+, by its samples it is",
    ],
    change_a_version: [r"manifest\.json: bs1/logits\.npy: packages\.onnxruntime is '\d.*', meta/infer_bs1\.json says '9\.9'"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_is_found_and_named(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    wrong, said = verified(folder)
    assert (wrong > 0, said.splitlines()[-1]) == (True, f"{wrong} mismatches: {folder}")
    for line in CHANGES[change]:
        assert re.search(f"^mismatch     {line}", said, re.M), f"{line} is not in\n{said}"


def test_it_is_found_in_the_small_file_too(folder: Path, tmp_path: Path) -> None:
    for change in CHANGES:
        change(folder)
    _, said = verified(small_file(folder, tmp_path / "small"))
    for line in (line for change in CHANGES if change != change_a_logit for line in CHANGES[change][:2]):
        assert re.search(f"^mismatch     {line}", said, re.M), f"{line} is not in\n{said}"
    assert not re.search(r"^mismatch .*(logits.npy: sha256|largest difference)", said, re.M)  # what is not there is not wrong


def test_a_forger_who_mends_the_hashes_is_found_by_the_figures_and_the_words(folder: Path) -> None:
    path = folder / "bs1/accuracy.json"
    accuracy = json.loads(path.read_text())
    right = accuracy["top1_percent"]
    path.write_text(json.dumps(accuracy | {"top1_percent": 99.99}))
    page = folder / f"{PAGE}.html"
    page.write_text(page.read_text().replace(f">{right:.2f}<", ">99.99<").replace("Accuracy in percent", "Accuracy, percent"))
    for record in ("score_bs1.json", "page_06_accuracy_bs1.json"):
        facts = json.loads((folder / "meta" / record).read_text())
        for name, file in facts["outputs"].items():
            file["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "meta" / record).write_text(json.dumps(facts))
    _, said = verified(folder)
    assert "sha256 is" not in said.replace("manifest.json: bs1/accuracy.json: sha256 is", "")
    assert f"bs1/accuracy.json: top1_percent is 99.99, computed again it is {right!r}" in said
    assert re.search(
        rf"{PAGE}.html: table 'Accuracy, perc.*column 'Acc@1': shown is '99.99', drawn again it is '{right:.2f}'", said
    )
    assert re.search(rf"{PAGE}.html: caption: shown is 'Accuracy, perc.*, drawn again it is 'Accuracy in percent", said)


def test_a_record_that_is_gone_is_named(folder: Path) -> None:
    (folder / "meta/infer_bs1.json").unlink()
    assert "mismatch     meta/infer_bs1.json: no sound record of bs1/logits.npy, bs1/latency.csv" in verified(folder)[1]


def test_a_page_whose_step_stopped_has_no_hash_and_figures_of_before_need_none(folder: Path) -> None:
    page = folder / "meta/page_06_accuracy_bs1.json"
    page.write_text('{"stopped": "06_accuracy bs1: no memory"}')
    (folder / "meta/predecessor.json").write_text('{"created": "2026-11-20"}')
    said = verified(folder)[1]
    assert "not checked  the hash of a page whose step stopped: meta/page_06_accuracy_bs1.json has none" in said
    assert "predecessor" not in said


def test_imported_figures_pass(folder: Path, tmp_path: Path) -> None:
    pages = [path for pattern in ("*.ipynb", "*.html", "page_*", "manifest.json") for path in folder.rglob(pattern)]
    for path in pages:  # they are of before
        path.unlink()
    source = tmp_path / "perf_vision_batchsize_1_device_0.txt"
    source.write_text(PUBLISHED[0][1])
    result = (folder / "bs1/result.json").read_bytes()
    imported.import_results(Run.resolve(folder / "spec.yaml", 1), source, None, None)
    (folder / "bs1/result.json").write_bytes(result)  # from somewhere
    wrong, said = verified(folder)
    assert wrong == 0, said
    assert "not checked  meta/score_bs1.json: no sound record of bs1/result.json" in said


def test_code_of_a_stranger_is_not_run(folder: Path) -> None:
    path = folder / f"{PAGE}.ipynb"
    replaced(path, "page.paired(run)", f"open({str(folder / 'run')!r}, 'w')")
    _, said = verified(folder)
    assert re.search(rf"mismatch     {PAGE}.ipynb: a cell that is not in notebooks/06_accuracy.ipynb: \"open\(", said)
    assert not (folder / "run").exists()


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")
    (tmp_path / "bare").mkdir()
    shutil.copy(write_spec(tmp_path), tmp_path / "bare/spec.yaml")
    for given, said in (
        (tmp_path, "no run folder"),
        (tmp_path / "text", "no file that `deit-report pack` wrote"),
        (tmp_path / "bare", "no finished run"),
    ):
        result = CliRunner().invoke(main, ["verify", str(given)])
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert said in result.output


def test_answers_stand_for_logits_and_timings_come_back_to_the_last_digit(project: Path) -> None:
    """Of 2,000 images and 1,000 classes, equal logits among them; 50,000 fit, as bytes go with images."""
    count, generator = 2000, np.random.default_rng(0)
    run = opened(project).at(1)
    logits = np.round(generator.normal(size=(count, 1000)), 1).astype(np.float32)  # many are equal
    labels = generator.integers(0, 1000, count)
    for path in (run.file("reference"), run.file("logits")):
        path.parent.mkdir()
        np.save(path, logits)
        logits = logits + (generator.random(logits.shape) < 1e-3).astype(np.float32)
    spans = {name: generator.lognormal(size=count) for name in latency.TIMINGS}
    latency.write_latency(run.file("latency"), np.ones(count, int), spans)
    left_out = bundle.pack_audit(run, project / "small")
    assert 25 * (project / "small").stat().st_size < bundle.MOST_BYTES
    assert sorted(left_out) == ["bs1/logits.npy", "reference/logits.npy"]
    folder, _ = bundle.unpack(project / "small", project / "unpacked")
    assert (folder / "bs1/latency.csv").read_bytes() == run.file("latency").read_bytes()
    bundle.stand_in(folder, 0)
    for name in left_out:
        true, there = np.load(run.folder / name), np.load(folder / name)
        assert (true.argmax(axis=1) == there.argmax(axis=1)).all()
        ranks, again = (np.minimum(label_ranks(side, labels), 5) for side in (true, there))
        assert (ranks == again).all()
