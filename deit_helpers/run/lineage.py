"""The lineage of a run: which notebook makes which file from what. ONE table, in the order in which it runs.

`records.py` judges by it whether a file may be used as it stands, `pipeline.py` plans by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .backends import BACKENDS


@dataclass(frozen=True)
class Stage:
    """What one verb makes: once per run, or per batch size where the paths of its files hold {n}.

    Attributes:
        outputs: names of files -> where they lie in the run folder. {n} is the batch size, {d} the device, {backend} its name.
        inputs: names of files of other stages, or `checkpoint`, `source` (images and labels), `expected`, `classes` (their
            number in the exported graph, once 01 was run); `device_model` stands for the file that the backend loads.
        keys: keys of the spec that the files depend on.
        code: files and folders of this package that they depend on; `backend` stands for those of the spec's backend. What
            files are read and written with (`run/`, `files.py`), and the statistics and vendor's formats beside a result,
            are left out where a change of them leaves the result as it is: nobody infers 50,000 images again for them.
            Empty for the demo's files: they are data, made once, as a user's images and checkpoint are.
        packages: packages whose versions they depend on; `backend` stands for that of the spec's backend.
        only_for: the key of the spec that has to say `demo`: other runs do without this stage.
    """

    outputs: dict[str, str]
    inputs: tuple[str, ...]
    keys: tuple[str, ...]
    code: tuple[str, ...]
    packages: tuple[str, ...] = ()
    only_for: str | None = None

    @property
    def per_batch(self) -> bool:
        return any("{n}" in path for path in self.outputs.values())


@dataclass(frozen=True)
class Notebook:
    """A notebook and its page.

    Attributes:
        folder: where its page lies in the run folder: once per run, or per batch size where it holds {n}.
        stages: what it makes.
        alone: it measures time, nothing runs beside it.
        beside: the notebook at whose side it runs: that one needs nothing of it but at the same batch size.
        shows: stages of other batch sizes that are on its page.
        asked_by: the key of the spec that asks for it; runs without the key do without it.
        by_hand: no run plans it, a user executes it.
    """

    folder: str
    stages: dict[str, Stage] = field(default_factory=dict)
    alone: bool = False
    beside: str | None = None
    shows: tuple[str, ...] = ()
    asked_by: str | None = None
    by_hand: bool = False

    @property
    def per_batch(self) -> bool:
        return "{n}" in self.folder


_DATA_KEYS = ("images", "labels", "limit", "limit_seed", "on_bad_image", "preprocess")
_LABEL_KEYS = ("class_order", "labels_format")
_RUNTIME_KEYS = ("backend", "precision", "device", "preprocess", "execution", "providers", "runtime", "ema")
_DATA = ("data", "run/recipes.py")
_CONTRACT = ("backends/__init__.py", "backends/contract.py", "backends/pool.py")
_REFERENCE = (*_CONTRACT, "backends/ort.py")  # ONNX Runtime, whatever the spec's backend
_MODEL = (*_CONTRACT, "backends/bench.py", "backend")
SHARD_CODE = ("executors/local.py", "run/journal.py", *_DATA, *_MODEL)
RUNG_CODE = (
    "evidence/rungs.py", "evidence/inputs.py", "precision/rounding.py", "graph", "child.py", "run/edits.py", "run/rungs.py",
    *_DATA, *_REFERENCE, *BACKENDS["torch"].code,
)  # fmt: skip
NOTEBOOKS = {
    "01_export": Notebook("export", {
        "demo_images": Stage({"demo_images": "demo/images.csv"}, (), (), (), only_for="images"),
        "demo": Stage(
            {"demo_checkpoint": "demo/checkpoint.pth", "demo": "demo/demo.json"},
            (), ("model", "model_args", "preprocess", "limit", "limit_seed"), (), only_for="checkpoint",
        ),
        "export": Stage(
            {"onnx": "export/deit.onnx", "export": "export/export.json"},
            ("checkpoint", "source"),
            ("model", "model_args", "checkpoint", "ema", "opset", *_DATA_KEYS, *_LABEL_KEYS),
            ("stages/export.py", "model", "child.py", *_DATA, *_REFERENCE), ("torch", "timm", "onnx", "onnxruntime"),
        ),
    }),
    "04_preprocess": Notebook("dataset", {
        "preprocess": Stage(
            {"images": "dataset/images.npy", "index": "dataset/index.csv", "preprocess": "dataset/preprocess.json"},
            ("source", "classes"), (*_DATA_KEYS, *_LABEL_KEYS, "bins", "stream"),
            ("stages/preprocess.py", *_DATA), ("numpy", "pillow"),
        ),
    }, beside="02_optimize"),
    "02_optimize": Notebook("bs{n}", {
        "optimize": Stage(
            {"static_onnx": "bs{n}/deit_bs{n}.onnx", "optimize": "bs{n}/optimize.json"},
            ("onnx", "source"), ("edits", "allow_inexact", *_DATA_KEYS),
            ("stages/optimize.py", "evidence/certificate.py", "run/edits.py", "graph", "child.py", *_DATA, *_REFERENCE),
            ("onnx", "onnx-ir", "onnxsim", "onnxruntime"),
        ),
    }),
    "03_convert": Notebook("bs{n}", {
        "convert": Stage(
            {
                "convert": "bs{n}/convert.json", "om": "bs{n}/deit_bs{n}.om",
                "atc_log": "bs{n}/atc.log", "aipp": "bs{n}/aipp.cfg",
            },
            ("static_onnx",), ("backend", "precision", "device", "soc_version", "aipp", "atc", "preprocess"),
            ("stages/convert.py", "ascend/atc.py", "ascend/aipp.py", "run/recipes.py"),
        ),
    }, beside="02_optimize"),
    "05_infer": Notebook("bs{n}", {
        "reference": Stage(
            {"reference": "reference/logits.npy"}, ("onnx", "images"), ("preprocess", "stream"),
            ("stages/reference.py", *_DATA, *_REFERENCE), ("onnxruntime",),
        ),
        "infer": Stage(
            {
                "logits": "bs{n}/logits.npy", "latency": "bs{n}/latency.csv", "infer": "bs{n}/infer.json",
                "perf_vision": "bs{n}/perf_vision_batchsize_{n}_device_{d}.txt", "tool_log": "bs{n}/{backend}.log",
            },
            ("device_model", "images"), (*_RUNTIME_KEYS, "bins", "stream"),
            ("stages/infer.py", *SHARD_CODE), ("backend",),
        ),
        "agreement": Stage(
            {"agreement": "bs{n}/agreement.json"}, ("logits", "reference"), (),
            ("stages/reference.py", "metrics/classification.py", *_DATA, *_REFERENCE),
        ),
    }, alone=True),
    "06_accuracy": Notebook("bs{n}", {
        "score": Stage(
            {"result": "bs{n}/result.json", "accuracy": "bs{n}/accuracy.json", "predictions": "bs{n}/predictions.csv"},
            ("logits", "reference", "index", "preprocess", "expected", "real_labels"),
            ("expected", "real_labels", "batch_sizes"),
            ("stages/accuracy.py", *(f"metrics/{name}.py" for name in ("classification", "planner", "proportions", "verdict")),
             *(f"data/{name}" for name in ("sources.py", "classes.py", "labels.py", "transforms.py", "imagenet.tsv")),
             "run/expected.py", "run/recipes.py"),
        ),
    }, shows=("score", "infer")),
    "07_perf": Notebook("bs{n}", {
        "perf": Stage(
            {"profile": "bs{n}/profile.csv", "perf": "bs{n}/perf.json"},
            ("device_model", "optimize", "images", "latency", "infer"), (*_RUNTIME_KEYS, "peak_tflops", "time_box_s"),
            ("stages/perf.py", "metrics/latency.py", "metrics/operators.py", "ascend/msprof.py",
             "backends/watched.py", *_DATA, *_MODEL),
            ("backend",),
        ),
    }, alone=True, shows=("infer",)),
    "waterfall": Notebook("bs{n}", {
        "waterfall": Stage(
            {"waterfall": "bs{n}/waterfall.json"},
            ("logits", "images", "index", "source", "onnx", "checkpoint", "expected"),
            ("waterfall", "model", "model_args", "ema", "preprocess", "edits", "backend", "precision", "atc", "stream"),
            ("stages/waterfall.py", *RUNG_CODE, "metrics/classification.py", "metrics/proportions.py", "run/expected.py"),
            ("torch", "timm", "onnxruntime", "onnx", "onnx-ir", "onnxsim", "numpy", "pillow"),
        ),
    }, alone=True, asked_by="waterfall"),
    "rehearsal": Notebook("rehearsal", {
        "rehearsal": Stage(
            {"rehearsal": "rehearsal/rehearsal.json", "keep_dtype": "rehearsal/keep_dtype.cfg",
             "modify_mixlist": "rehearsal/modify_mixlist.json", "onnxruntime_fp16": "rehearsal/onnxruntime_fp16.json",
             "tensorrt_precisions": "rehearsal/tensorrt_precisions.txt"},
            ("static_onnx", "images"), ("preprocess", "stream"),
            ("stages/rehearsal.py", "precision", "graph", "child.py",
             "metrics/classification.py", "metrics/proportions.py", *_DATA),
            ("onnx", "onnx-ir", "onnxruntime"),
        ),
    }, asked_by="rehearse"),
    "localize": Notebook("", by_hand=True),  # localize.json, suspects.json: no records, they depend on what it is given
    "compare": Notebook("compare/*", by_hand=True),  # a folder for each run that this one was compared with
}  # fmt: skip
STAGES = {name: stage for notebook in NOTEBOOKS.values() for name, stage in notebook.stages.items()}
NOTEBOOKS["report"] = Notebook("", shows=tuple(STAGES))
NOTEBOOK_OF = {stage: name for name, notebook in NOTEBOOKS.items() for stage in notebook.stages}
FILES = {name: path for stage in STAGES.values() for name, path in stage.outputs.items()}
MAKER = {name: stage for stage, row in STAGES.items() for name in row.outputs}
PAGE_CODE = (  # what draws a page, besides its notebook
    "report", "run", "metrics", "data", "ascend/cann.py", "audit/rules.py", "ascend/benchmark.py", "ascend/dumps.py",
)  # fmt: skip
