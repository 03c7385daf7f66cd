"""05: what ends up in the logits, the latencies and the stage table, against ONNX Runtime called directly."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from runs import IMAGES, SIZES, copy_of, new_run, run_through_05

from deit_helpers import files
from deit_helpers.ascend import benchmark, dumps
from deit_helpers.backends import bench, pool
from deit_helpers.data.sources import read_index
from deit_helpers.data.transforms import tensors
from deit_helpers.errors import ArtifactError, BackendError, SpecError
from deit_helpers.metrics import latency
from deit_helpers.run import host, records
from deit_helpers.run.folder import Run
from deit_helpers.stages import export, infer, optimize, reference
from deit_helpers.stages.preprocess import preprocess


def rows_of(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["reference", "logits"])
@pytest.mark.parametrize("size", SIZES)
def test_every_image_gets_the_logits_it_gets_alone(finished: Run, size: int, name: str) -> None:
    logits = np.load(finished.at(size).file(name))
    session = onnxruntime.InferenceSession(finished.file("onnx"), providers=["CPUExecutionProvider"])
    batch = tensors(np.load(finished.file("images")), finished.spec.recipe)
    alone = np.concatenate([session.run(None, {"image": batch[i : i + 1]})[0] for i in range(len(batch))])
    assert (logits.shape, logits.dtype) == ((IMAGES, 3), np.float32)
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    assert np.ptp(alone, axis=0).min() > 0.1  # images differ: a wrong order would show


def test_batch_sizes_agree_on_top1_and_logits(finished: Run) -> None:
    first, *others = (np.load(finished.at(size).file("logits")) for size in SIZES)
    for logits in others:
        np.testing.assert_allclose(logits, first, atol=1e-4)
        assert np.array_equal(logits.argmax(axis=1), first.argmax(axis=1))


@pytest.mark.parametrize(("size", "batches", "padded"), [(1, 13, 0), (4, 4, 3), (8, 2, 3)])
def test_padded_rows_are_masked_and_counted(finished: Run, size: int, batches: int, padded: int) -> None:
    facts = finished.at(size).read("infer")
    assert (facts["batch_size"], facts["images"], facts["batches"], facts["padded_rows"]) == (size, IMAGES, batches, padded)
    rows = rows_of(finished.at(size).file("latency"))
    assert [row["batch"] for row in rows] == list(range(batches))
    assert [row["images"] for row in rows] == [size] * (batches - 1) + [IMAGES - size * (batches - 1)]


@pytest.mark.parametrize("size", SIZES)
def test_the_summary_follows_from_the_latency_file(finished: Run, size: int) -> None:
    facts, rows = finished.at(size).read("infer"), rows_of(finished.at(size).file("latency"))
    calls_ms = sorted(row["interface_ms"] for row in rows)
    assert facts["latency_ms"]["n"] == len(rows)
    assert facts["latency_ms"]["mean"] == pytest.approx(sum(calls_ms) / len(rows), abs=1e-5)
    middle = (calls_ms[(len(rows) - 1) // 2] + calls_ms[len(rows) // 2]) / 2
    assert facts["latency_ms"]["p50"] == pytest.approx(middle, abs=1e-5)
    full = [row["interface_ms"] for row in rows if row["images"] == size]
    assert facts["interface_batches"] == len(full)
    assert facts["interface_images_per_s"] == pytest.approx(1000 * size * len(full) / sum(full), rel=1e-4)
    wall_s = next(stage["seconds"] for stage in facts["stages"] if stage["name"] == "e2e")
    assert facts["e2e_efficiency"] == pytest.approx(facts["e2e_images_per_s"] / facts["interface_images_per_s"])
    assert facts["e2e_images_per_s"] == pytest.approx(IMAGES / wall_s)
    for name, column in (("data read", "read"), *((n, n) for n in ("preprocess", "inference", "postprocess"))):
        seconds = sum(row[f"{column}_ms"] for row in rows) / 1000
        stage = next(stage for stage in facts["stages"] if stage["name"] == name)
        assert stage["seconds"] == pytest.approx(seconds, rel=1e-4)
        assert stage["images_per_s"] == pytest.approx(IMAGES / seconds, rel=1e-4)
    assert all(row["interface_ms"] <= row["inference_ms"] for row in rows)


def test_the_file_holds_what_others_read(finished: Run) -> None:
    facts = finished.read("infer")
    assert [stage["name"] for stage in facts["stages"]] == list(benchmark.ROWS)
    assert facts["latency_ms"].keys() == {"mean", "p50", "p90", "p99", "n"}
    assert facts["warmup_batches"] == len(facts["warmup_ms"]) == pool.WARMUP_BATCHES
    assert facts["runtime"]["version"] == onnxruntime.__version__


@pytest.mark.parametrize("size", SIZES)
def test_the_vendors_performance_file_has_its_five_labels(finished: Run, size: int) -> None:
    path = finished.at(size).file("perf_vision")
    assert path.name == f"perf_vision_batchsize_{size}_device_0.txt"
    number = r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)"
    lines = re.findall(
        rf"^\[([a-z0-9 ]+)\] throughputRate: {number}, .*?(?:moduleLatency|latency): {number}$", path.read_text(), re.M
    )
    assert [label for label, *_ in lines] == ["e2e", "data read", "preprocess", "inference", "postprocess"]
    facts = finished.at(size).read("infer")
    rates = {stage["name"]: stage["images_per_s"] for stage in facts["stages"]}
    for label, rate, latency_ms in lines:
        if label == "postprocess":  # the tool counts batches there
            assert float(rate) == pytest.approx(rates[label] * facts["batches"] / IMAGES, rel=1e-4)
        else:
            assert float(rate) == pytest.approx(rates[label], rel=1e-4)
        if label != "e2e":
            assert float(latency_ms) == pytest.approx(1000 / float(rate), rel=1e-4)
    (interface,) = re.findall(rf"Interface throughputRate: {number}", path.read_text())
    assert float(interface) == pytest.approx(facts["interface_images_per_s"], rel=1e-4)


def test_with_bins_the_dumps_a_recipes_scripts_read_are_written_too(tmp_path: Path) -> None:
    run = run_through_05(new_run(tmp_path, bins=True))
    names, _ = read_index(run)
    np.testing.assert_array_equal(dumps.read(run.folder / "bs4" / "dumpOutput_device0", names), np.load(run.file("logits")))


def test_a_graph_put_in_place_of_the_right_one_is_refused(uninferred: Run) -> None:
    shutil.copy(uninferred.at(1).file("static_onnx"), uninferred.file("static_onnx"))
    with pytest.raises(ArtifactError, match=r"deit_bs4\.onnx was changed after it was made .*notebooks/02_optimize\.ipynb"):
        infer.infer(uninferred)


def test_a_graph_of_another_batch_size_is_refused_even_where_the_records_agree(
    uninferred: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(uninferred.at(1).file("static_onnx"), uninferred.file("static_onnx"))
    monkeypatch.setattr(records, "require", lambda *_: None)
    with pytest.raises(
        BackendError, match=r"made for batches of 1, this run has batch_size 4: run notebooks/02_optimize\.ipynb"
    ):
        infer.infer(uninferred)


def test_nan_logits_stop_the_run_and_leave_no_new_logits(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = onnx.load(uninferred.file("static_onnx"))
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, np.nan, 0], np.float32), "head.bias"))
    onnx.save(graph, uninferred.file("static_onnx"))
    monkeypatch.setattr(records, "require", lambda *_: None)
    with pytest.raises(BackendError, match=r"deit_bs4\.onnx returned NaN or infinite logits"):
        infer.infer(uninferred)
    assert not list(uninferred.file("logits").parent.glob("*logits*"))


def test_a_label_outside_the_classes_stops_before_the_first_batch(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = read_index(uninferred)[0][5]
    text = uninferred.file("index").read_text()
    uninferred.file("index").write_text(re.sub(rf"{re.escape(name)},\d", f"{name},3", text))
    monkeypatch.setattr(records, "require", lambda *_: None)
    with pytest.raises(SpecError, match=rf"{re.escape(name)} has label 3, the model has classes 0 to 2"):
        infer.infer(uninferred)


def test_inference_without_its_inputs_names_the_notebook_that_makes_them(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"deit_bs4\.onnx: does not exist yet; run notebooks/02_optimize\.ipynb with batch_size=4"
    ):
        infer.infer(run)
    with pytest.raises(ArtifactError, match=r"run notebooks/01_export\.ipynb \("):
        reference.reference(run)
    export.export(run)
    optimize.optimize(run)
    for stage in (infer.infer, reference.reference):
        with pytest.raises(ArtifactError, match=r"images\.npy: does not exist yet; run notebooks/04_preprocess\.ipynb \("):
            stage(run)
    preprocess(run)
    assert infer.infer(run)["images"] == IMAGES


@pytest.mark.parametrize("stage", [infer.infer, reference.reference])
def test_a_second_call_runs_nothing(finished: Run, monkeypatch: pytest.MonkeyPatch, stage: Callable[[Run], object]) -> None:
    for module in (bench, reference):
        monkeypatch.setattr(module, "open_backend", lambda *_, **__: pytest.fail("ran again"))
    stage(finished)


def test_what_others_had_is_of_all_shards_by_their_time(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    percents = iter([40.0, None, 10.0, 20.0])  # the second was made too soon to tell
    monkeypatch.setattr(host.Others, "percent", lambda self: (next(percents), None))
    facts = infer.infer(uninferred)
    seconds = [row["seconds"] for row in facts["shards"]]
    expected = np.average([40.0, 10.0, 20.0], weights=[seconds[0], seconds[2], seconds[3]])
    assert facts["other_cpu_percent"] == pytest.approx(expected)
    assert facts["disturbed"] == f"others had {expected:.1f} % of the CPU"
    assert facts["unsettled_percent"] is None  # four batches


def test_what_is_not_known_of_others_is_no_zero(uninferred: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Others, "percent", lambda self: (None, None))
    facts = infer.infer(uninferred)
    assert (facts["other_cpu_percent"], facts["disturbed"]) == (None, "")


@pytest.mark.parametrize(("in_flight", "unsettled"), [(1, True), (2, False)])
def test_batches_that_come_together_do_not_make_a_rate_unsettled(
    finished: Run, tmp_path: Path, in_flight: int, unsettled: bool
) -> None:
    """Two threads are done at nearly the same moment: every other call seems to have taken no time."""
    timings = np.tile(np.repeat([[19.9], [0.1]], len(latency.TIMINGS), axis=1), (25, 1))
    copy = copy_of(finished, tmp_path).at(1)
    files.write_json(copy.file("preprocess"), {"images": 50})
    facts = {"wall_s": 0.4, "in_flight": in_flight, "warmup_ms": [], "load_s": 0.0, "peak_memory_mib": 1.0}
    facts |= {"other_cpu_percent": 0.0, "interrupted_percent": 0.0}
    written = infer._write_rates(copy, timings, [facts])
    assert bool(written["disturbed"]) is unsettled
    assert (written["unsettled_percent"] < 0.01) is not unsettled
