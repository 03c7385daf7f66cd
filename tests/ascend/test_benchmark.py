"""File formats of the benchmark tool: the data set it reads, the performance file it writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from recorded import PUBLISHED

from deit_helpers.ascend import benchmark
from deit_helpers.errors import ArtifactError

NUMBER = r"(?<=: )[0-9.e+]+"
TENSORS = [np.random.default_rng(i).normal(size=(3, 4, 5)).astype(np.float32) for i in range(3)]


def parsed(text: str) -> tuple[str, list[float]]:
    """The text with its numbers taken out, and the numbers."""
    return re.sub(NUMBER, "#", text), [float(number) for number in re.findall(NUMBER, text)]


@pytest.mark.parametrize(("measured", "published"), PUBLISHED, ids=["bs1", "bs8"])
def test_the_performance_file_is_the_published_one(measured: tuple, published: str) -> None:
    images, batch_size, wall_s, rates, interface_per_s = measured
    rates = {**rates, "e2e": images / wall_s}
    stages = [{"name": name, "images_per_s": rate, "seconds": images / rate} for name, rate in rates.items()]
    (our_text, ours), (their_text, theirs) = (
        parsed(text) for text in (benchmark.perf_vision(stages, interface_per_s, images, batch_size), published)
    )
    assert our_text == their_text
    # The published latency of the inference stage is 1000 divided by neither of its rates: ours is by the first.
    assert ours.pop(8) == pytest.approx(1000 / rates["inference"], rel=1e-5)
    assert theirs.pop(8) > 0
    assert ours == pytest.approx(theirs, rel=2e-5)  # the published rates are rounded to six digits


def test_numbers_have_six_significant_digits() -> None:
    stages = [{"name": name, "images_per_s": 1234567.0, "seconds": 12.3456789} for name in benchmark.ROWS]
    text = benchmark.perf_vision(stages, 0.000123456789, 10, 10)
    assert text.startswith("[e2e] throughputRate: 1.23457e+06, latency: 12345.7\n")
    assert "Interface throughputRate: 0.000123457," in text


def test_a_partial_last_batch_is_one_more_batch_on_the_postprocess_line() -> None:
    stages = [{"name": name, "images_per_s": 13.0, "seconds": 1.0} for name in benchmark.ROWS]
    assert "[postprocess] throughputRate: 4, moduleLatency: 250\n" in benchmark.perf_vision(stages, 13.0, 13, 4)


def test_the_data_set_is_raw_float32_with_one_info_line_per_image(tmp_path: Path) -> None:
    info = benchmark.write_info(tmp_path / "dataset", ["apple/1.jpg", "berry/1.jpg", "c.d.JPEG"], TENSORS)
    bins = [tmp_path / "dataset" / "bins" / name for name in ("apple__1.bin", "berry__1.bin", "c.bin")]
    assert info == tmp_path / "dataset" / "deit_prep_bin.info"
    assert info.read_text() == "".join(f"{i} dataset/bins/{path.name} 5 4\n" for i, path in enumerate(bins))
    for path, tensor in zip(bins, TENSORS, strict=True):
        np.testing.assert_array_equal(np.fromfile(path, "<f4").reshape(3, 4, 5), tensor, strict=True)


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a/b.jpg", "a__b.jpg")])
def test_two_images_that_would_share_a_file_are_named(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ArtifactError) as caught:
        benchmark.write_info(tmp_path, list(names), TENSORS[:2])
    assert all(name in str(caught.value) for name in names)
    assert "rename one" in str(caught.value)
    assert not (tmp_path / "deit_prep_bin.info").exists()


@pytest.mark.parametrize("text", [
    "[INFO] ave_throughputRate: 155.975samples/s, ave_latency: 6.42435ms",
    "first\nave_throughputRate = 155.975samples/s, ave_latency = 6.42435ms\n",
])  # fmt: skip
def test_pure_inference_is_read_from_file_and_console(text: str) -> None:
    assert benchmark.read_pure(text, "x") == (155.975, 6.42435)
    with pytest.raises(ArtifactError, match="x: no line 'ave_throughputRate"):
        benchmark.read_pure("nothing", "x")
