"""A checkpoint's file -> names and weights: what the file is, by its first bytes, and which of its entries is taken."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, one_line
from ..run import hashing
from ..run.validation import nearest

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
WEIGHTS = ("model", "state_dict")  # as DeiT's and timm's training names them
_AGAIN = "download the weights themselves"
_FOREIGN = (
    (rb"version https://git-lfs", f"is a Git LFS pointer, not the weights: run `git lfs pull` beside it, or {_AGAIN}"),
    (rb"\s*<", f"is a web page, not the weights: the address or the login was wrong; {_AGAIN}"),
    (rb"\s*[\[{]", "is JSON, an index or a configuration: give the file that holds the weights, such as model.safetensors"),
    (rb"\x89HDF", f"is an HDF5 file, as Keras writes it: {_AGAIN} for PyTorch (.pth or .safetensors)"),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc|Rar!|.{257}ustar",
        "is a packed archive: unpack it, and give the checkpoint that is in it",
    ),
)
_ALONE = "where you trust the file, save its weights alone: torch.save(model.state_dict(), …)"
# Eight hex digits, as torch.hub appends them, before extensions and what a browser adds to a second copy; but no date.
_HASH = re.compile(r"-(?!(?:19|20)\d{6})([0-9a-f]{8})(?:[ ._-]*(?:copy|\(\d+\)|\d{1,2}|pth|pt|bin|tar|safetensors))*$", re.I)


def read(path: Path, ema: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a state dict: `.safetensors`, or a torch file that holds it bare or as an entry, as training scripts write it.

    A hash in the file's name is checked. Pickles are read with `weights_only=True`: one that would run code is refused.

    Args:
        ema: take the entry with the averaged weights.

    Returns:
        Names to tensors, all of them finite; and the facts `entry` (None when bare), `ema`, and `other_entries` with weights.

    Raises:
        ArtifactError: missing, damaged, wrong hash, something else, refused, or no state dict.
    """
    import torch

    check(path)
    name, entries = _entry(path, _content(path), ema)
    state = entries.pop(name)
    for weight, tensor in state.items():
        try:
            sound = bool(torch.isfinite(tensor).all())
        except RuntimeError as err:  # sparse, quantised
            raise ArtifactError(
                f"{path}: weight {one_line(weight)} is no plain tensor ({one_line(err, 80)}); save it dense"
            ) from err
        if not sound:
            raise ArtifactError(f"{path}: weight {one_line(weight)} holds NaN or infinity; use a sound checkpoint")
    return state, {"entry": name or None, "ema": ema, "other_entries": [one_line(other, 60) for other in entries][:9]}


def check(path: Path) -> None:
    """Raises ArtifactError for what is no checkpoint, and for one that is not the file that its name says."""
    if path.is_dir():
        inside = _weights_in(path)
        if (path / "data.pkl").is_file():
            raise ArtifactError(f"{path}: is a .pth that was unpacked, as some browsers do: download it again without that")
        what = f"give a file in it, such as {one_line(inside[0])}" if inside else "give a .pth or .safetensors file"
        raise ArtifactError(f"{path}: is a folder, not a checkpoint: {what}")
    if not path.is_file():
        near = nearest(path.name, _weights_in(path.parent))
        raise ArtifactError(f"checkpoint: no such file {path}{near}; give a .pth or .safetensors file, `hub` or `demo`")
    if re.search(r"-\d{5}-of-\d{5}\.", path.name):
        how = "load all of them with the library that wrote them, and save one state dict"
        raise ArtifactError(f"{path}: is one of several files of a checkpoint: {how}")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read ({err.strerror}); correct its permissions") from err
    for pattern, what in () if _is_safetensors(head) else _FOREIGN:
        if re.match(pattern, head, re.I | re.S):
            raise ArtifactError(f"{path}: {what}")
    prefix = _HASH.search(path.name)
    if prefix and (start := hashing.sha256(path)[:8]) != prefix[1].lower():
        raise ArtifactError(f"{path}: its sha256 starts with {start}, its name says {prefix[1]}: get it again, or rename it")


def _weights_in(folder: Path) -> list[str]:
    """The names in a folder that may be checkpoints; none where it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIXES))
    except OSError:
        return []


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and that header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def _content(path: Path) -> Any:
    """What the file holds, read without running anything that it names."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # torch's advice on raw pickles
            if _is_safetensors(file.read(512)):
                return load_file(path)
            _check_archive(path)
            torch.serialization.add_safe_globals([argparse.Namespace])  # a training script's arguments: a bag of values
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        wanted = re.search(r"GLOBAL (\S+)", str(err))
        if wanted or "is not supported" in str(err):
            what = f" ({one_line(wanted[1], 60)})" if wanted else ""
            raise ArtifactError(
                f"{path}: refused, reading it would run code or build more than tensors{what}; {_ALONE}"
            ) from err
        raise ArtifactError(f"{path}: cannot be read as a checkpoint ({one_line(err, 80)}); {_AGAIN} again") from err
    except (SafetensorError, RuntimeError, EOFError, OSError, LookupError, ValueError, AttributeError, TypeError,
            AssertionError, MemoryError, OverflowError, zipfile.BadZipFile) as err:  # fmt: skip
        raise ArtifactError(
            f"{path}: cannot be read as a checkpoint ({type(err).__name__}: {one_line(err)}); {_AGAIN} again"
        ) from err


def _check_archive(path: Path) -> None:
    """Raises ArtifactError for a zip file that torch did not save as a checkpoint."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = [name.rpartition("/")[2] for name in archive.namelist()]
    if "constants.pkl" in members:
        how = "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        raise ArtifactError(f"{path}: is a TorchScript program, which would run code: {how} saves its weights, if you trust it")
    if "data.pkl" not in members:
        what = "a NumPy archive of JAX weights" if any(name.endswith(".npy") for name in members) else "a zip archive"
        raise ArtifactError(f"{path}: is {what}, not a PyTorch checkpoint: give the .pth or .safetensors file")


def _entry(path: Path, content: Any, ema: bool) -> tuple[str, dict[str, dict[str, Any]]]:
    """Which entry is taken, and every entry that holds weights; a bare state dict is the entry without a name."""
    entries = {"": content} if _is_state(content) else {}
    if isinstance(content, dict) and not entries:
        entries = {str(name): value for name, value in content.items() if _is_state(value)}
    if not entries:
        inside = (
            ", ".join(one_line(name, 30) for name in list(content)[:5]) if isinstance(content, dict) else type(content).__name__
        )
        raise ArtifactError(f"{path}: holds no state dict (names to tensors), bare or as an entry, but {inside or 'nothing'}")
    fitting = [name for name in entries if ("ema" in re.split(r"[._]", name.lower())) == ema]
    chosen = next((name for name in WEIGHTS if name in fitting), fitting[0] if len(fitting) == 1 else None)
    if chosen is None:
        listed = ", ".join(one_line(name, 30) for name in list(entries)[:5]) if "" not in entries else "a bare state dict"
        what = "no averaged weights (model_ema, state_dict_ema)" if ema else "no entry `model` or `state_dict`"
        several = " only" if len(entries) == 1 else ""
        advice = "leave `ema` out" if ema else "set `ema: true`" if not fitting else "save the right one alone"
        raise ArtifactError(f"{path}: has {what},{several} {listed}: {advice}")
    return chosen, entries


def _is_state(value: Any) -> bool:
    import torch

    named = isinstance(value, dict) and value and all(isinstance(name, str) for name in value)
    return bool(named) and all(isinstance(tensor, torch.Tensor) for tensor in value.values())
