"""07: FLOPs counted by hand and by torch, and a summary that follows from the files it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from runs import SIZES, copy_of, new_run

from deit_helpers import files
from deit_helpers.backends import Backend, Execution, Loaded, Options, Pool, Prediction, bench
from deit_helpers.data.batches import Batch
from deit_helpers.errors import ArtifactError
from deit_helpers.metrics import operators
from deit_helpers.report import perf as report_perf
from deit_helpers.run import host, records
from deit_helpers.run.folder import Run
from deit_helpers.stages import perf


@pytest.mark.parametrize("size", SIZES)
def test_the_file_holds_what_others_read(finished: Run, size: int) -> None:
    facts, inference = finished.at(size).read("perf"), finished.at(size).read("infer")
    assert facts.keys() >= {
        "batch_size", "backend", "device", "precision", "images_per_s", "e2e_images_per_s", "e2e_efficiency", "latency_ms",
        "stages", "families", "flops_per_image", "utilisation_percent",
    }  # fmt: skip
    assert (facts["batch_size"], facts["backend"], facts["device"], facts["precision"]) == (size, "onnxruntime", "CPU", "fp32")
    assert facts["latency_ms"] == inference["latency_ms"]
    assert facts["stages"] == inference["stages"]
    assert facts["images_per_s"] == inference["interface_images_per_s"]
    assert facts["e2e_images_per_s"] == inference["stages"][-1]["images_per_s"]
    assert facts["e2e_efficiency"] == inference["e2e_efficiency"]
    rate = facts["pure"]["images_per_s"] * facts["flops_per_image"] / facts["peak_flops_per_s"]
    assert facts["utilisation_percent"] == pytest.approx(100 * rate)


@pytest.mark.parametrize("size", SIZES)
def test_the_operator_table_is_of_the_counted_batches(finished: Run, size: int) -> None:
    table, facts = pd.read_csv(finished.at(size).file("profile")), finished.at(size).read("perf")
    assert list(table.columns) == operators.COLUMNS
    assert facts["profiled_batches"] == max(perf.PROFILED_BATCHES, -(-perf.PROFILED_IMAGES // size))
    assert set(table["calls"]) == {facts["profiled_batches"]}
    assert facts["operators_ms"] == pytest.approx(table["total_us"].sum() / 1000 / facts["profiled_batches"], rel=1e-4)
    assert facts["operators_ms"] <= facts["profiled_ms"]
    for family, row in facts["families"].items():
        assert row["share_percent"] == pytest.approx(table.loc[table["family"] == family, "share_percent"].sum(), abs=1e-3)
    assert set(facts["families"]) == set(operators.FAMILIES)
    assert sum(row["share_percent"] for row in facts["families"].values()) == pytest.approx(100)


def test_a_vits_attention_has_its_matrix_products_and_softmaxes(finished: Run) -> None:
    nodes = pd.read_csv(finished.file("profile")).groupby("family").size()
    families = ["BatchMatMulV2", "SoftmaxV2", "Conv2D", "Gelu", "LayerNorm"]
    assert nodes[families].to_list() == [4, 2, 1, 2, 5]  # two blocks, and the last norm: the runtime fuses its steps
    assert nodes["MatMulV2"] == 2 * 4 + 1  # qkv, proj, fc1, fc2; the head


class Plain(Backend):
    def load(self) -> Loaded:
        return Loaded([None], None, 3, 224, np.dtype(np.float32))

    def infer(self, session: None, batch: np.ndarray) -> Execution:
        return Execution(np.zeros((len(batch), 3), np.float32))

    def describe(self) -> dict[str, str]:
        return {"backend": "plain", "version": "1", "device": "none", "precision": "fp32"}


def test_without_a_profiler_the_page_says_why_and_the_rest_is_measured(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(finished, tmp_path)
    records.forget(copy, "perf")
    monkeypatch.setattr(bench, "open_backend", lambda *_: Pool(Plain(Path("m"), Options())))
    facts = perf.measure(copy)
    assert (facts["families"], facts["profile_reason"]) == ({}, "backend onnxruntime has no profiler")
    assert (facts["utilisation_percent"], facts["peak_flops_per_s"]) == (None, None)
    assert (facts["profiler_overhead_percent"], facts["residual_ms"]) == (None, None)
    pure = facts["pure"]
    assert pure["images_per_s"] == pytest.approx(4000 / pure["latency_ms"]["p50"])
    assert pure["images_per_s_ci95"][0] <= pure["images_per_s"] <= pure["images_per_s_ci95"][1]
    assert facts["e2e_of_pure"] == pytest.approx(facts["e2e_images_per_s"] / pure["images_per_s"])
    assert pd.read_csv(copy.file("profile")).columns.to_list() == operators.COLUMNS
    assert "has no profiler" in report_perf.top_operators(copy)._repr_html_()
    assert "ackend onnxruntime has no profiler" in report_perf.families_chart(copy)._repr_html_()
    assert "set peak_tflops" in report_perf.utilisation(copy)._repr_html_()


def test_a_peak_of_the_spec_takes_the_place_of_a_measured_one(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    facts = perf.measure(copy.replace(peak_tflops=2.0))
    assert (facts["peak_flops_per_s"], facts["peak_source"]) == (2e12, "peak_tflops of the spec")
    assert facts["utilisation_percent"] == pytest.approx(100 * facts["pure"]["images_per_s"] * facts["flops_per_image"] / 2e12)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("optimize", r"notebooks/02_optimize\.ipynb with batch_size=4"),
        ("preprocess", r"notebooks/04_preprocess\.ipynb \("),
        ("infer", r"notebooks/05_infer\.ipynb with batch_size=4"),
    ],
)
def test_measuring_without_its_inputs_names_the_notebook(finished: Run, tmp_path: Path, stage: str, message: str) -> None:
    copy = copy_of(finished, tmp_path)
    records.forget(copy, "perf")
    records.forget(copy, stage)
    with pytest.raises(ArtifactError, match=message):
        perf.measure(copy)


def test_a_new_run_starts_with_02(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"deit_bs4\.onnx: does not exist yet; run notebooks/02_optimize\.ipynb"):
        perf.measure(new_run(tmp_path))


def test_predictions_that_come_together_are_timed_together() -> None:
    """Two threads are done at nearly the same moment: the median of single intervals would be one of two wrong ones."""

    def predictions(batches: Iterable[Batch], singly: bool) -> Iterator[Prediction]:
        for i, batch in enumerate(batches):
            yield Prediction(batch, np.zeros((4, 3)), 19.9 if i % 2 else 0.1, 20.0)

    model = SimpleNamespace(backend=SimpleNamespace(times_executions=False), workers=2, predictions=predictions)
    samples_ms, _ = bench.time_alone(model, None, 1.0)
    np.testing.assert_allclose(samples_ms, 10.0)


def test_a_device_that_tells_execution_from_copies_is_timed_by_every_execution() -> None:
    class Device(Plain):
        times_executions, executions = True, 0

        def load(self) -> Loaded:
            return super().load()._replace(sessions=[None, None])

        def infer(self, session: None, batch: np.ndarray) -> Execution:
            self.executions += 1
            return super().infer(session, batch)._replace(ms=40.0 + self.executions)

        def start(self, session: None, batch: np.ndarray) -> None:
            pytest.fail("executions that overlap are not timed alone")

        finish = start

    model = Pool(Device(Path("m"), Options()))
    samples_ms, facts = bench.time_alone(model, model.noise(1), 0.05)
    all_ms = [*facts["warmup_ms"], *samples_ms]
    np.testing.assert_array_equal(all_ms, 41.0 + np.arange(len(all_ms)))


def test_the_profilers_overhead_has_an_interval_from_six_batches_on(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    table = pd.read_csv(copy.file("profile"))
    for slower, interval in (([1.1, 1.2, 1.3, 1.2, 1.2, 1.2], (10, 30)), ([1.2], None)):
        plain = 100.0 + np.arange(len(slower))
        profile = operators.OperatorProfile(table, len(slower), list(plain * slower), list(plain))
        facts = perf.perf_facts(copy, copy.read("infer"), profile)
        assert facts["profiler_overhead_percent"] == pytest.approx(20)
        assert facts["profiler_overhead_ci95_percent"] == (interval and pytest.approx(interval))
        files.write_json(copy.file("perf"), facts)
        shown = report_perf.accounting(copy).values[f"profiler's overhead on {len(slower)} batches"]
        assert shown == ("20.0 % (10.0 to 30.0)" if interval else "not known: too few batches")


def test_where_a_batch_takes_too_long_for_plain_calls_the_overhead_is_not_measured(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    profile = operators.OperatorProfile(pd.read_csv(copy.file("profile")), 2, [100.0, 102.0])
    facts = perf.perf_facts(copy, copy.read("infer"), profile)
    assert (facts["profiled_batches"], facts["profiled_ms"]) == (2, 101.0)
    assert (facts["profiler_overhead_percent"], facts["profiler_overhead_ci95_percent"]) == (None, None)


def test_what_disturbed_07_is_in_its_file_and_not_what_disturbed_05(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(finished, tmp_path, time_box_s=0.01)
    files.write_json(copy.file("infer"), copy.read("infer") | {"other_cpu_percent": 50.0, "disturbed": "A"})
    monkeypatch.setattr(host.Others, "percent", lambda self: (30.0, 1.0))
    stood_still = iter([0.0, 40.0])  # before, and after
    monkeypatch.setattr(host, "interrupted_percent", lambda: next(stood_still))
    monkeypatch.setattr(records, "require", lambda *_: None)
    facts = perf.measure.__wrapped__(copy)
    assert (facts["other_cpu_percent"], facts["pure"]["steal_percent"]) == (30.0, 1.0)
    assert facts["disturbed"] == facts["pure"]["disturbed"]
    text = "others had 30.0 % of the CPU, a small workload on all cores stood still for 40.0 % of its time"
    assert facts["disturbed"].startswith(text)
    without = perf.perf_facts(copy, copy.read("infer"), "imported")  # 07 measured nothing of its own
    assert (without["other_cpu_percent"], without["disturbed"]) == (None, "")
