"""What `checkpoint:` may be: every kind of file a user brings, how it is made here, and what comes of it.

The weights are those of a random ViT of two blocks and three classes. An outcome is the facts that 01 records, where the file
is read and gives these very weights; or a regular expression that the error matches.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from refusals import refused
from runs import TINY, make_checkpoint, opened
from safetensors.torch import save
from timm.scheduler import CosineLRScheduler
from timm.utils import CheckpointSaver, ModelEmaV3

from deit_helpers.errors import ArtifactError
from deit_helpers.model import checkpoint
from deit_helpers.run import hashing

State = dict[str, torch.Tensor]
Make = Callable[[Path, State], Path]  # what the user brings: from a folder and the weights to the path they give
ARGUMENTS = argparse.Namespace(model="deit_small_patch16_224", lr=5e-4, output_dir="out")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return torch.load(make_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth"), weights_only=True)["model"]


def saved(name: str, content: Callable[[State], Any]) -> Make:
    """A file that torch saved."""

    def make(folder: Path, state: State) -> Path:
        torch.save(content(state), folder / name)
        return folder / name

    return make


def written(name: str, content: bytes | Callable[[State], bytes]) -> Make:
    """A file of these bytes."""

    def make(folder: Path, state: State) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content(state))
        return folder / name

    return make


def named(name: str) -> Make:
    """The official layout under a name in which HASH is the beginning of the file's sha256."""

    def make(folder: Path, state: State) -> Path:
        with (folder / "weights").open("wb") as file:
            torch.save({"model": state}, file)
        return (folder / "weights").rename(folder / name.replace("HASH", hashing.sha256(folder / "weights")[:8]))

    return make


def other(state: State) -> State:
    """Weights that are not those of `state`: what must not be taken."""
    return {name: tensor + 1 for name, tensor in state.items()}


def deit_training(weights: Callable[[State], State] = dict, ema: Callable[[State], State] = other) -> Make:
    """`checkpoint.pth` of DeiT's main.py."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    schedule = CosineLRScheduler(optimizer, t_initial=5).state_dict()
    rest = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule, "epoch": 3, "scaler": {"scale": 2.0}}
    return saved("checkpoint.pth", lambda s: {"model": weights(s), **rest, "model_ema": ema(s), "args": ARGUMENTS})


def timm_training(folder: Path, state: State) -> Path:
    """`model_best.pth.tar` as timm's own saver writes it, with averaged weights."""
    model = timm.create_model(TINY["model"], num_classes=3, **TINY["model_args"])
    model.load_state_dict(state)
    averaged = ModelEmaV3(model)
    averaged.module.load_state_dict(other(state))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(model, optimizer, ARGUMENTS, averaged, checkpoint_dir=str(folder), recovery_dir=str(folder))
    saver.save_checkpoint(1, metric=79.9)
    return folder / "model_best.pth.tar"


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


def hugging_face(kind: str) -> Callable[[State], State]:
    """The names of transformers' ViTForImageClassification, DeiTForImageClassificationWithTeacher or Dinov2Model."""
    table = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    if kind == "dinov2":
        table = {same: same for same in table} | {f"ls{i}.gamma": f"layer_scale{i}.lambda1" for i in (1, 2)}
    table["attn.proj"] = "attention.output.dense"
    tops = {"cls_token": "embeddings.cls_token", "dist_token": "embeddings.distillation_token",
            "pos_embed": "embeddings.position_embeddings", "norm": "layernorm",
            "patch_embed.proj": "embeddings.patch_embeddings.projection"}  # fmt: skip
    heads = {"head": "cls_classifier" if kind == "deit" else "classifier", "head_dist": "distillation_classifier"}

    def rename(state: State) -> State:
        renamed = {"dinov2.embeddings.mask_token": torch.zeros(1, 48)} if kind == "dinov2" else {}
        for name, tensor in state.items():
            module, _, end = name.rpartition(".") if name.endswith((".weight", ".bias")) else (name, "", "")
            end = f".{end}" if end else ""
            if module in heads:
                renamed[heads[module] + end] = tensor
            elif module in tops:
                renamed[f"{kind}.{tops[module]}{end}"] = tensor
            else:
                _, block, part = module.split(".", 2)
                layer = f"{kind}.encoder.layer.{block}"
                if part == "attn.qkv":
                    for third, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                        renamed[f"{layer}.attention.attention.{third}{end}"] = piece
                else:
                    renamed[f"{layer}.{table[part]}{end}"] = tensor
        return renamed

    return rename


def folder_of(*names: str) -> Make:
    def make(folder: Path, state: State) -> Path:
        (folder / "downloaded").mkdir()
        for name in names:
            (folder / "downloaded" / name).touch()
        return folder / "downloaded"

    return make


def zipped(*names: str) -> Make:
    def make(folder: Path, state: State) -> Path:
        with zipfile.ZipFile(folder / "x.pth", "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        return folder / "x.pth"

    return make


def torchscript(folder: Path, state: State) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but files of it are about
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), folder / "traced.pt")
    return folder / "traced.pt"


def with_weight(name: str, tensor: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, name: tensor(state[name])}


def of_model(name: str, **options: Any) -> Make:
    """The weights of another model."""
    return saved("other.pth", lambda _: timm.create_model(name, **options).state_dict())


def deit_3(state: State) -> State:
    """DeiT III's official files have the layer scales beside the layers."""
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): tensor for name, tensor in state.items()}


def dinov2_registers(state: State) -> State:
    """DINOv2's official files have a position for the class token, and a mask."""
    renamed = {name.replace("reg_token", "register_tokens"): tensor for name, tensor in state.items()}
    first = torch.ones_like(state["cls_token"])
    renamed["pos_embed"] = torch.cat([first, state["pos_embed"]], dim=1)
    return renamed | {"cls_token": state["cls_token"] - first, "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


BARE = {"entry": None, "ema": False, "other_entries": [], "prefix": None, "names": "timm", "renamed": 0, "reshaped": [],
        "dtype": "float32"}  # fmt: skip
SMALL = {"model": "deit_small_patch16_224", "model_args": {}}
READ: dict[str, tuple[Make, dict[str, Any], dict[str, Any]]] = {
    "a bare state dict": (saved("x.pth", dict), {}, BARE),
    "safetensors": (written("x.safetensors", save), {}, BARE),
    "safetensors under another name": (written("x.bin", save), {}, BARE),
    "the official layout": (named("x.pth"), {}, {"entry": "model"}),
    "a hash in its name": (named("deit-HASH.pth"), {}, {"entry": "model"}),
    "a second download": (named("deit-HASH (1).pth"), {}, {"entry": "model"}),
    "a date in its name": (named("deit-20240131.pth"), {}, {"entry": "model"}),
    "DeiT's checkpoint.pth": (deit_training(), {}, {"entry": "model", "ema": False, "other_entries": ["model_ema"]}),
    "its averaged weights": (
        deit_training(other, dict), {"ema": True}, {"entry": "model_ema", "ema": True, "other_entries": ["model"]},
    ),
    "timm's model_best.pth.tar": (timm_training, {}, {"entry": "state_dict", "other_entries": ["state_dict_ema"]}),
    "averaged weights of timm's layout": (
        saved("x.pth.tar", lambda s: {"state_dict": other(s), "state_dict_ema": s}), {"ema": True}, {"entry": "state_dict_ema"},
    ),
    "DataParallel": (saved("x.pth", prefixed("module.")), {}, {"prefix": "module."}),
    "torch.compile": (saved("x.pth", prefixed("_orig_mod.")), {}, {"prefix": "_orig_mod."}),
    "both": (saved("x.pth", lambda s: {"model": prefixed("module._orig_mod.")(s)}), {}, {"prefix": "module._orig_mod."}),
    "Lightning": (
        saved("x.ckpt", lambda s: {"state_dict": prefixed("model.")(s), "epoch": 3, "hyper_parameters": {"lr": 0.1}}), {},
        {"prefix": "model."},
    ),
    "Hugging Face's ViT": (saved("pytorch_model.bin", hugging_face("vit")), {}, {"names": "Hugging Face", "renamed": 0}),
    "half precision": (saved("x.pth", lambda s: {name: t.half() for name, t in s.items()}), {}, {"dtype": "float16"}),
    "positions of larger images": (
        saved("x.pth", with_weight("pos_embed", lambda t: torch.cat([t, *[t[:, 1:]] * 3], dim=1)[:, : 1 + 24 * 24])), {},
        {"reshaped": [{"name": "pos_embed", "from": [1, 577, 48], "to": [1, 197, 48]}]},
    ),
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any], Callable[[State], State], dict[str, Any]]] = {
    "Hugging Face's distilled DeiT": (
        "deit_tiny_distilled_patch16_224", TINY["model_args"], hugging_face("deit"), {"names": "Hugging Face", "renamed": 0},
    ),
    "DeiT III": ("deit3_small_patch16_224", TINY["model_args"], deit_3, {"renamed": 4, "reshaped": []}),
    "DINOv2 with registers": (
        "vit_small_patch14_reg4_dinov2", {**TINY["model_args"], "img_size": 28}, dinov2_registers,
        {"renamed": 2, "reshaped": [{"name": "pos_embed", "from": [1, 5, 48], "to": [1, 4, 48]}]},
    ),
    "Hugging Face's DINOv2": (
        "vit_small_patch14_dinov2", {**TINY["model_args"], "img_size": 28}, hugging_face("dinov2"),
        {"names": "Hugging Face", "renamed": 1, "reshaped": []},
    ),
    "a head with a name of its own": ("test_convnext", {}, dict, {"renamed": 0}),
}  # fmt: skip
REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no file": (lambda folder, _: folder / "nowhere.pth", {}, r"no such file .*nowhere\.pth; give a \.pth or \.safetensors"),
    "a name with a slip": (
        lambda folder, s: named("deit.pth")(folder, s).with_name("diet.pth"), {}, r"diet\.pth; did you mean 'deit\.pth'",
    ),
    "a folder": (folder_of("config.json", "model.safetensors"), {}, r"is a folder.*: give a file in it, such as model\."),
    "an empty folder": (folder_of(), {}, r"is a folder, not a checkpoint: give a \.pth"),
    "an unpacked file": (folder_of("data.pkl", "version"), {}, r"is a \.pth that was unpacked"),
    "an empty file": (written("x.pth", b""), {}, r"cannot be read as a checkpoint \(EOFError.*download the weights"),
    "a Git LFS pointer": (
        written("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 88\n"), {},
        "is a Git LFS pointer.*git lfs pull",
    ),
    "a web page": (written("x.pth", b"\n<!DOCTYPE html>\n<html><title>Sign in</title>"), {}, "is a web page, not the weights"),
    "a server's error": (written("x.pth", b"<?xml version='1.0'?><Error>AccessDenied</Error>"), {}, "is a web page"),
    "an index of shards": (written("model.safetensors.index.json", b'{"weight_map": {}}'), {}, r"is JSON.*model\.safetensors"),
    "Keras": (written("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), {}, "is an HDF5 file"),
    "gzip": (written("x.pth.gz", lambda s: gzip.compress(save(s))), {}, "is a packed archive: unpack it"),
    "an archive of the file": (lambda folder, s: tarred(folder, s), {}, "is a packed archive: unpack it"),
    "TorchScript": (torchscript, {}, r"is a TorchScript program.*state_dict\(\)"),
    "JAX weights": (zipped("Transformer/encoder.npy"), {}, "is a NumPy archive of JAX weights"),
    "any zip file": (zipped("readme.txt"), {}, "is a zip archive, not a PyTorch checkpoint"),
    "a wrong hash": (named("deit-0badc0de.pth"), {}, "its name says 0badc0de: get it again"),
    "a wrong hash, second download": (named("deit-0badc0de (1).pth"), {}, "its name says 0badc0de: get it again"),
    "a wrong hash, a copy": (named("deit-0badc0de - Copy.pth"), {}, "its name says 0badc0de"),
    "a wrong hash, wget's second": (named("deit-0badc0de.pth.1"), {}, "its name says 0badc0de"),
    "a whole module": (saved("x.pth", lambda _: torch.nn.Linear(2, 2)), {}, r"refused.*\(torch\.nn\..*Linear\).*state_dict"),
    "a path among the arguments": (
        saved("x.pth", lambda s: {"model": s, "args": argparse.Namespace(out=Path())}), {}, "refused.*pathlib.*; where you",
    ),
    "a cut torch file": (written("x.pth", lambda s: torch_bytes(s)[:-1000]), {}, "cannot be read as a checkpoint"),
    "a cut safetensors file": (written("x.safetensors", lambda s: save(s)[:1000]), {}, "cannot be read as a checkpoint"),
    "another pickle": (written("x.pkl", pickle.dumps([1, 2])), {}, "cannot be read|holds no state dict|refused"),
    "noise": (written("x.pth", bytes(range(256)) * 9), {}, "cannot be read as a checkpoint"),
    "no weights": (saved("x.pth", lambda _: {"epoch": 3, "model": {}}), {}, "holds no state dict.* but epoch, model"),
    "a list": (saved("x.pth", lambda _: [1, 2]), {}, "holds no state dict.* but list"),
    "a tensor": (saved("x.pth", lambda _: torch.zeros(3)), {}, "holds no state dict.* but Tensor"),
    "no averaged weights": (named("x.pth"), {"ema": True}, "has no averaged weights .*, only model: leave `ema` out"),
    "a bare one, averaged": (saved("x.pth", dict), {"ema": True}, "no averaged weights .* a bare state dict: leave `ema` out"),
    "averaged weights alone": (saved("x.pth", lambda s: {"model_ema": s, "epoch": 3}), {}, "only model_ema: set `ema: true`"),
    "teacher and student": (
        saved("x.pth", lambda s: {"student": s, "teacher": s}), {},
        "no entry `model` or `state_dict`, student, teacher: save the right",
    ),
    "NaN": (saved("x.pth", with_weight("norm.weight", lambda t: t * float("nan"))), {}, r"weight norm\.weight holds NaN"),
    "sparse": (saved("x.pth", with_weight("head.weight", torch.Tensor.to_sparse)), {}, r"head\.weight is no plain tensor"),
    "quantised": (
        saved("x.pth", with_weight("head.weight", lambda t: t.to(torch.int8))), {}, r"head\.weight is torch\.int8, quantised",
    ),
    "no head": (
        saved("x.pth", lambda s: {k: v for k, v in s.items() if not k.startswith("head")}), {},
        r"missing head\.bias, head\.weight .*no classifier",
    ),
    "classes that model_args deny": (
        saved("x.pth", dict), {"model_args": {**TINY["model_args"], "num_classes": 5}}, r"shape head\.bias, head\.weight",
    ),
    "more blocks": (
        saved("x.pth", dict), {"model_args": {**TINY["model_args"], "depth": 1}},
        r"unexpected blocks\.1\..* … \(12\); correct model or",
    ),
    "fewer blocks": (saved("x.pth", dict), {"model_args": {**TINY["model_args"], "depth": 3}}, r"missing blocks\.2\..* \(12\)"),
    "DeiT-tiny as DeiT-small": (of_model("deit_tiny_patch16_224"), SMALL, "shape.*; it fits model: deit_tiny_patch16_224 or "),
    "distilled DeiT": (
        of_model("deit_small_distilled_patch16_224"), SMALL,
        r"unexpected dist_token.*; it fits model: deit_small_distilled_patch16_224$",
    ),
    "patches of another size": (
        of_model("vit_small_patch32_224"), SMALL,
        r"another shape patch_embed\.proj\.weight, pos_embed .*; it fits model: vit_small_patch32_224$",
    ),
    "DeiT III as DeiT": (of_model("deit3_small_patch16_224"), SMALL, r"; it fits model: deit3_small_patch16_224$"),
}  # fmt: skip


def torch_bytes(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def tarred(folder: Path, state: State) -> Path:
    with tarfile.open(folder / "x.pth.tar", "w") as archive:
        archive.add(saved("x.pth", dict)(folder, state), "x.pth")
    return folder / "x.pth.tar"


@pytest.mark.parametrize("kind", READ)
def test_a_checkpoint_that_is_read(project: Path, state: State, kind: str) -> None:
    make, keys, facts = READ[kind]
    model, recorded = checkpoint.load(opened(project, checkpoint=str(make(project, state)), **keys))
    assert facts.items() <= recorded.items()
    reshaped = {row["name"] for row in recorded["reshaped"]}
    exact = {} if recorded["dtype"] == "float32" else {"rtol": 1e-3, "atol": 1e-4}
    for name, tensor in model.state_dict().items():
        if name not in reshaped:
            torch.testing.assert_close(tensor, state[name], **(exact or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_official_names_of_other_families_are_read(project: Path, kind: str) -> None:
    name, arguments, official, facts = FAMILIES[kind]
    weights = timm.create_model(name, num_classes=0 if "dino" in name else 3, **arguments).state_dict()
    path = saved("x.pth", lambda _: official(weights))(project, {})
    model, recorded = checkpoint.load(opened(project, checkpoint=str(path), model=name, model_args=arguments))
    assert facts.items() <= recorded.items()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[key], rtol=0, atol=1e-6)


def test_positions_are_resampled_over_the_grid_of_patches(project: Path, state: State) -> None:
    path = saved("x.pth", dict)(project, state)
    model = checkpoint.load(opened(project, checkpoint=str(path), model_args={**TINY["model_args"], "img_size": 96}))[0]
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.pos_embed[:, 1:], smaller.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_checkpoint_that_is_refused(project: Path, state: State, kind: str) -> None:
    make, keys, message = REFUSED[kind]
    with refused(message, ArtifactError):
        checkpoint.load(opened(project, checkpoint=str(make(project, state)), **keys))


class RunsCode:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("torch_file", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(project: Path, torch_file: bool) -> None:
    marker, path = project / "ran", project / "evil.pth"
    evil = {"model": {"head.weight": RunsCode(marker)}, "args": ARGUMENTS}
    if torch_file:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(ArtifactError, match=r"evil\.pth: refused, reading it would run code .*mkdir.*save its weights alone"):
        checkpoint.load(opened(project, checkpoint=str(path)))
    assert not marker.exists()
    torch.load(path, weights_only=False) if torch_file else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file is a real one
