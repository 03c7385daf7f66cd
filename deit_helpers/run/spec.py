"""What a run is: one YAML file read into one validated, frozen `RunSpec`.

Every key of a spec is listed here with its type and default; anything else is refused with the nearest right name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from ..errors import SpecError
from . import rungs
from .backends import BACKENDS, BackendRow
from .edits import INEXACT_EDITS
from .recipes import RECIPES, PreprocessSpec
from .validation import Frozen, PathText, known_name, read_yaml

MOST_BATCH = 65_536  # more is a slip of the pen, and its files could not be named
BackendName = Annotated[str, AfterValidator(lambda name: known_name(name, BACKENDS))]
EditName = Annotated[str, AfterValidator(lambda name: known_name(name, rungs.EDITS))]
RungName = Annotated[str, AfterValidator(lambda name: known_name(name, rungs.NAMES))]


class RunSpec(Frozen):
    """One run. Paths are relative to the directory the command runs in; what the keys mean is in the README."""

    run: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str
    model_args: dict[str, int | float | str | bool] = Field(default_factory=dict)
    checkpoint: PathText
    images: PathText
    labels: PathText | None = None
    labels_format: Literal["index", "from_1", "devkit"] | None = None
    real_labels: PathText | None = None
    class_order: Literal["numeric", "text", "synset"] | None = None
    limit: int | None = Field(default=None, ge=1)
    limit_seed: int = Field(default=0, ge=0)
    on_bad_image: Literal["stop", "skip"] = "stop"
    ema: bool | None = None
    preprocess: str | PreprocessSpec = "deit"
    bins: bool = False
    opset: int = Field(default=11, ge=9, le=18)
    edits: tuple[EditName, ...] = Field(default=(), strict=False)  # a list of YAML becomes a tuple
    allow_inexact: bool = False
    backend: BackendName = "onnxruntime"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    device: int = Field(default=0, ge=0)
    soc_version: str | None = None
    execution: Literal["sync", "async"] = "sync"
    peak_tflops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    latency_budget_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    time_box_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    aipp: Literal["static"] | None = None
    atc: dict[str, str | int | None] = Field(default_factory=dict)
    providers: dict[str, dict[str, str | int | float | bool]] = Field(default_factory=dict)
    runtime: dict[str, int | str | bool] = Field(default_factory=dict)
    stream: bool = False
    shards: tuple[int, int] | None = Field(default=None, strict=False)
    batch_sizes: tuple[int, ...] = Field(default=(1, 8, 32), strict=False)
    expected: str | None = None
    waterfall: tuple[RungName, ...] = Field(default=(), strict=False)
    rehearse: bool = False
    lang: Literal["en", "zh", "both"] = "en"

    @field_validator("preprocess", mode="before")
    @classmethod
    def _recipe_from_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            return known_name(value, [*RECIPES, "model"])
        if not isinstance(value, (dict, PreprocessSpec)):
            raise ValueError("the name of a recipe, or a mapping such as {resize_px: 248, interpolation: bicubic}")
        recipe = PreprocessSpec.from_mapping(value, "preprocess") if isinstance(value, dict) else value
        if RECIPES.get(recipe.name, recipe) != recipe:
            raise ValueError(f"another name, {recipe.name} is a recipe of its own")
        return recipe

    @field_validator("edits")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or "class_token_only" in value[:-1]:
            raise ValueError("every edit at most once, and 'class_token_only' last: the others look for whole blocks")
        return value

    _rungs = field_validator("waterfall")(rungs.checked)

    @model_validator(mode="after")
    def _what_ascend_allows(self) -> RunSpec:
        if self.aipp and "uint8_input" in self.edits:
            raise ValueError("aipp: static or the edit 'uint8_input', not both: each of them takes 8-bit images and normalises")
        if self.aipp and not self.backend_row.needs_om:
            raise ValueError(f"aipp: null for backend {self.backend}: AIPP is a part of Ascend chips")
        if reserved := sorted({"model", "output", "framework", "input_shape"} & self.atc.keys()):
            raise ValueError(f"atc without {reserved[0]}: the run sets it")
        if {"precision_mode", "precision_mode_v2"} <= self.atc.keys():
            raise ValueError("one of precision_mode and precision_mode_v2 in atc, not both")
        if self.aipp and "input_fp16_nodes" in self.atc:
            raise ValueError("aipp: null with input_fp16_nodes in atc: under AIPP the input is 8-bit")
        return self

    @model_validator(mode="after")
    def _what_the_data_path_allows(self) -> RunSpec:
        if self.images == "demo" and self.labels:
            raise ValueError("labels: null with images: demo: the demo's images lie in class folders")
        if self.labels_format and not self.labels:
            raise ValueError("labels with labels_format: it says how their numbers are counted")
        if self.checkpoint == "demo" and self.images != "demo":
            raise ValueError("images: demo with checkpoint: demo: its head knows the demo's digits only")
        if self.stream and (self.bins or self.on_bad_image == "skip" or self.backend_row.is_program):
            raise ValueError("stream: false with bins, on_bad_image: skip or a vendor's program: they need the store")
        if self.backend == "torch" and self.edits:
            raise ValueError("edits: [] for backend torch: it runs the checkpoint itself, not the graph")
        if self.shards and not 0 <= self.shards[0] <= self.shards[1]:
            raise ValueError("shards of the first and the last to make, counted from 0, such as [0, 9]")
        if "softmax_axis" in (*self.edits, *self.waterfall) and self.opset < 13:
            raise ValueError(f"edits and waterfall without 'softmax_axis' at opset {self.opset}, or opset: 13 or newer")
        if not self.allow_inexact and (inexact := [name for name in self.edits if name in INEXACT_EDITS]):
            raise ValueError(f"edits without {inexact[0]!r}, which changes what the model computes, or allow_inexact: true")
        return self

    @field_validator("batch_sizes")
    @classmethod
    def _positive_and_distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1 or max(value) > MOST_BATCH or len(set(value)) != len(value):
            raise ValueError(f"one or more different positive integers up to {MOST_BATCH}, such as [1, 8, 32]")
        return value

    @property
    def source(self) -> str:
        """What the pipeline starts from, for captions."""
        return "image files" if self.stream else "store"

    @property
    def backend_row(self) -> BackendRow:
        return BACKENDS[self.backend]

    @property
    def precision_text(self) -> str:
        """The precision as a report states it: a flag of ATC that replaces it comes with its name."""
        flags = [f"{name}={value}" for name, value in self.atc.items() if name.startswith("precision_mode")]
        return " ".join(flags) if flags and self.backend_row.needs_om else self.precision

    @property
    def recipe(self) -> PreprocessSpec:
        """The recipe itself.

        Raises:
            SpecError: it is still `model`, which only an opened run has resolved (`model/timm_config.py`).
        """
        if self.preprocess == "model":
            raise SpecError("preprocess: model has not been resolved: open the run with open_run, or `deit-report run`")
        return self.preprocess if isinstance(self.preprocess, PreprocessSpec) else RECIPES[self.preprocess]

    @classmethod
    def load(cls, path: str | Path, overrides: dict[str, Any] | None = None) -> RunSpec:
        """Read and validate a spec file; `overrides` replace keys of it (`-s key=value` on the command line).

        Raises:
            SpecError: the file is missing or no YAML mapping, a key is unknown, a value has the wrong type or range.
        """
        return cls.from_mapping({**read_yaml(path), **(overrides or {})}, source=str(path))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def check_batch_size(value: Any) -> int:
    """Return `value` if it is a positive integer.

    Raises:
        SpecError: text, a float, a boolean, zero or a negative number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_BATCH:
        raise SpecError(f"batch_size: expected a positive integer such as 8, got {value!r}")
    return value
