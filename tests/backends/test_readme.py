"""The backend that the README of `backends/` shows: registered as it says, it runs a batch."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import house
import numpy as np
import pytest
from backends.test_ort import images, pool_and_classify

from deit_helpers import backends
from deit_helpers.backends import open_backend
from deit_helpers.run.backends import BACKENDS, BackendRow

FILE, ROW = re.findall(r"```python\n(.*?)```", (house.PACKAGE / "backends" / "README.md").read_text(), re.DOTALL)


def test_the_backend_of_the_readme_runs_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((name, row),) = eval(f"{{{ROW}}}", {"BackendRow": BackendRow}).items()
    module = ModuleType(row.target.partition(":")[0])
    module.__package__ = backends.__name__
    exec(FILE, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BACKENDS, name, row)
    path = pool_and_classify(tmp_path / "m.onnx")
    with open_backend(name, path) as model, open_backend("onnxruntime", path) as expected:
        np.testing.assert_allclose(model.infer(images(2)), expected.infer(images(2)), atol=1e-6)
        (prediction,) = model.predictions([model.noise(2)])
        assert prediction.logits.shape == (2, model.classes)
        assert model.describe().keys() <= expected.describe().keys()
