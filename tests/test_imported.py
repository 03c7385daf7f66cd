"""Importing what a vendor's tool wrote elsewhere: the recipe's printed figures, and the same result from its dumps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from recorded import PUBLISHED
from runs import copy_of, run_tool

from deit_helpers import files, imported, open_run
from deit_helpers.data.sources import read_index
from deit_helpers.errors import ArtifactError
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy


@pytest.mark.parametrize(("row", "card", "efficiency"), [(0, "415.18", "0.846"), (1, "488.2", "0.770")], ids=["bs1", "bs8"])
def test_the_recipes_printed_lines_give_its_figures(
    finished: Run, tmp_path: Path, row: int, card: str, efficiency: str
) -> None:
    size = (1, 8)[row]
    source = tmp_path / f"perf_vision_batchsize_{size}_device_0.txt"
    source.write_text(PUBLISHED[row][1])
    facts = imported.import_results(copy_of(finished, tmp_path).at(size), source, None, None, 4, "Ascend 310")
    decimals = len(card.partition(".")[2])
    assert f"{facts['card_images_per_s']:.{decimals}f}" == card
    assert f"{facts['e2e_efficiency']:.3f}" == efficiency
    assert facts["images"] == 50_000
    assert facts["imported_from"] == source.name


def test_a_pure_inference_file_gives_rate_and_mean_latency_and_nothing_else(finished: Run, tmp_path: Path) -> None:
    source = tmp_path / "PureInfer_perf_of_deit_bs8_in_device_0.txt"
    source.write_text("ave_throughputRate = 155.975samples/s, ave_latency = 6.42435ms\n")
    copy = copy_of(finished, tmp_path).at(8)
    facts = imported.import_results(copy, source, None, None, 4)
    assert (facts["interface_images_per_s"], facts["card_images_per_s"]) == (155.975, 4 * 155.975)
    assert facts["latency_ms"] == {"mean": 8 * 6.42435, "p50": None, "p90": None, "p99": None, "n": 0}
    assert facts["e2e_images_per_s"] is None
    assert copy.read("perf")["images_per_s"] == 155.975


@pytest.mark.parametrize("content", ["garbage", "[e2e] throughputRate: 1, latency: 1\n"])
def test_what_is_refused_leaves_the_run_as_it_is(finished: Run, tmp_path: Path, content: str) -> None:
    copy = copy_of(finished, tmp_path)
    before = {path: path.read_bytes() for path in copy.folder.rglob("*") if path.is_file()}
    source = tmp_path / "perf.txt"
    source.write_text(content)
    with pytest.raises(ArtifactError, match=r"perf\.txt: no line"):
        imported.import_results(copy, source, write_dumps(copy, tmp_path / "dumps"), None)
    assert {path: path.read_bytes() for path in copy.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("122.054", "122,054", "Interface is '122,054', expected a number above 0"),
        ("122.054", "1e999", "Interface is '1e999'"),
        ("122.054", "0", "Interface is '0'"),
        ("122.054", "12.2054", "images/s end to end, 12.2054 of the model alone: not possible"),
        ("122.054", "12.20.54", "Interface is '12.20.54'"),
    ],
)
def test_a_number_that_cannot_be_is_named(finished: Run, tmp_path: Path, old: str, new: str, message: str) -> None:
    source = tmp_path / "perf.txt"
    assert old in PUBLISHED[1][1]
    source.write_text(PUBLISHED[1][1].replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        imported.import_results(copy_of(finished, tmp_path), source, None, None)


def test_dumps_of_another_number_of_classes_are_refused(finished: Run, tmp_path: Path) -> None:
    copy, folder = copy_of(finished, tmp_path), tmp_path / "dumps"
    folder.mkdir()
    for name in read_index(finished)[0]:
        (folder / f"{name.replace('/', '__').partition('.')[0]}_1.txt").write_text("1 2 3 4 5")
    source = tmp_path / "perf.txt"
    source.write_text(PUBLISHED[1][1])
    before = copy.file("logits").read_bytes()
    with pytest.raises(ArtifactError, match="dumps of 5 values, the model has 3 classes"):
        imported.import_results(copy, source, folder, None)
    assert copy.file("logits").read_bytes() == before


def test_imported_dumps_are_of_the_images_they_were_imported_for(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    source = tmp_path / "perf.txt"
    source.write_text(PUBLISHED[1][1])
    imported.import_results(copy, source, write_dumps(copy, tmp_path / "dumps"), None)
    assert records.problem(copy, "infer") is None
    other = json.loads(records.record_path(copy, "preprocess").read_text())
    other["outputs"]["dataset/index.csv"]["sha256"] = "0" * 64
    records.record_path(copy, "preprocess").write_text(json.dumps(other))
    assert records.problem(copy, "infer") == "it was imported for other images: import it again"


def test_a_file_whose_name_says_another_batch_size_is_refused(finished: Run, tmp_path: Path) -> None:
    source = tmp_path / "perf_vision_batchsize_8_device_0.txt"
    source.write_text(PUBLISHED[1][1])
    with pytest.raises(ArtifactError, match="its name says batch size 8, imported as 4: correct -b"):
        imported.import_results(copy_of(finished, tmp_path), source, None, None)


def test_speed_measured_elsewhere_does_not_stand_beside_our_own_logits(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    source = tmp_path / "perf.txt"
    source.write_text(PUBLISHED[1][1])
    imported.import_results(copy, source, None, None, 1, "Ascend 310")
    left = [name for name in ("logits", "agreement", "accuracy", "result", "predictions") if copy.file(name).exists()]
    assert left == []
    assert records.problem(copy, "score")
    assert records.read_record(copy, "infer")["machine"] == {"cpu": "Ascend 310"}
    assert copy.read("infer")["machine"] is None


def write_dumps(run: Run, folder: Path) -> Path:
    """One text dump per image, as the benchmark tool writes them."""
    folder.mkdir()
    names, _ = read_index(run)
    for name, row in zip(names, np.load(run.file("logits")), strict=True):
        stem = str(Path(name).with_suffix("")).replace("/", "__")
        (folder / f"{stem}_1.txt").write_text(" ".join(f"{value:.9g}" for value in row))
    return folder


def test_dumps_give_the_same_result_as_our_own_logits(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    expected = copy.file("result").read_bytes()
    folder = write_dumps(copy, tmp_path / "dumpOutput_device0")
    for name in ("infer", "score"):
        records.forget(copy, name)
    copy.file("result").unlink()
    source = tmp_path / "perf.txt"
    source.write_text(PUBLISHED[1][1])
    imported.import_results(copy, source, folder, None)
    accuracy.score(copy)
    assert copy.file("result").read_bytes() == expected
    np.testing.assert_array_equal(np.load(copy.file("logits")), np.load(finished.file("logits")))
    files.write_text(copy.file("latency"), "changed by hand")
    assert "latency.csv was changed after it was made" in (records.problem(copy, "infer") or "")


def test_a_file_that_says_little_still_gives_its_pages(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    (tmp_path / "PureInfer.txt").write_text("ave_throughputRate = 155.975samples/s, ave_latency = 6.42435ms\n")
    options = ["-b", "8", "--perf", str(tmp_path / "PureInfer.txt")]
    result = run_tool("deit_helpers", "import", "reports/mini", *options, cwd=project)
    assert result.returncode == 0, result.stderr
    for page in ("index.html", "bs8/07_perf.html"):
        assert "156.0" in (project / "reports/mini" / page).read_text(), page


def test_the_command_publishes_pages_that_say_imported(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    run = open_run(project / "reports" / "mini" / "spec.yaml", 8)
    folder = write_dumps(run, tmp_path / "dumps")
    (tmp_path / "perf.txt").write_text(PUBLISHED[1][1])
    options = [
        "-b",
        "8",
        "--perf",
        str(tmp_path / "perf.txt"),
        "--dumps",
        str(folder),
        "--devices",
        "4",
        "--device",
        "Ascend 310",
    ]
    result = run_tool("deit_helpers", "import", "reports/mini", *options, cwd=project)
    assert result.returncode == 0, result.stderr
    for page in ("index.html", "bs8/05_infer.html", "bs8/06_accuracy.html", "bs8/07_perf.html"):
        assert "Imported figures." in (project / "reports/mini" / page).read_text(), page
    assert "Ascend 310" in (project / "reports/mini/index.html").read_text()


RECIPE = f"""
| Om Model | Acc@1 | Acc@5 |
| -------- | ----- | ----- |
| BS1      | 79.5 | 94.83 |
| BS8      | 79.5 | 94.83 |
| Official | 79.9  | 95.0  |

{
    json.dumps(
        accuracy.seed_result(
            {"top1_percent": 79.69, "top2_percent": 89.22, "top3_percent": 92.39, "top4_percent": 93.98, "top5_percent": 94.97}
            | {"images": 50_000, "classes": 1000}
        )
    )
}

result/perf_vision_batchsize_1_device_0.txt:

{PUBLISHED[0][1]}
batch8:

{PUBLISHED[1][1]}
"""


def test_a_recipes_text_gives_its_figures_and_the_warning_that_they_disagree(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    spec = "run: recipe\nmodel: deit_small_patch16_224\ncheckpoint: none.pth\nimages: none\nbatch_sizes: [1, 8]\n"
    (tmp_path / "params" / "recipe.yaml").write_text(spec)
    (tmp_path / "README.md").write_text(RECIPE)
    for size in ("1", "8"):
        options = ["-b", size, "--perf", "README.md", "--devices", "4", "--device", "Ascend 310"]
        result = run_tool("deit_helpers", "import", "params/recipe.yaml", *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    page = (tmp_path / "reports/recipe/index.html").read_text()
    for figure in ("415.2", "488.2", "84.6", "77.0", "79.69", "79.50", "94.83", "94.97"):
        assert figure in page, figure
    assert "79.50 % (its table, BS8) and 79.69 % (its result.json): 0.19 points apart" in page
    assert "Imported figures." in page
    run = open_run(tmp_path / "params/recipe.yaml", 4)
    with pytest.raises(ArtifactError, match="prints performance of batch sizes 1, 8, not 4: correct -b"):
        imported.import_results(run, tmp_path / "README.md", None, None)


def test_an_imported_run_without_dumps_says_so_where_predictions_are_asked_for(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    source = tmp_path / "PureInfer_perf_of_x.txt"
    source.write_text("ave_throughputRate = 100.0samples/s ave_latency = 10.0ms\n")
    imported.import_results(copy, source, None, None)
    run = open_run(copy.folder / "spec.yaml", copy.batch_size)
    with pytest.raises(ArtifactError, match=r"logits\.npy: was not imported; run notebooks/05_infer\.ipynb"):
        run.predictions()
    states = run.files().set_index("file")["state"]
    assert states[f"bs{run.batch_size}/logits.npy"] == "was not imported"
    accuracy.score(run.at(8))  # another batch size is scored all the same
