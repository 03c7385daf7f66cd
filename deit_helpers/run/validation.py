"""A mapping read from a YAML file -> a validated, frozen object; every error names file, key and what is allowed."""

from __future__ import annotations

import codecs
import difflib
import os
import re
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from ..errors import SpecError

MOST_BYTES = 100_000  # of a YAML file: a spec has one or two thousand, and PyYAML takes seconds for this many
_HINT = "name a spec file such as params/demo.yaml"
_short = reprlib.Repr()  # of a value of any size and depth
_short.maxstring = _short.maxother = 100


class Frozen(BaseModel):
    """A validated, unchangeable mapping read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    @classmethod
    def from_mapping(cls, values: Any, source: str) -> Self:
        """Validate a mapping read from a file.

        Raises:
            SpecError: every wrong key with what is allowed; `source` names the file.
        """
        try:
            return cls.model_validate(values)
        except SpecError as err:  # of a mapping inside
            raise SpecError(f"{source}: {err}") from err
        except ValidationError as err:
            wrong = [_explain(e, source, cls) for e in err.errors()]
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise SpecError("; ".join(wrong[:3]) + more) from err


class _Loader(yaml.SafeLoader):
    """Plain YAML; a key given twice is refused, and what fills memory or cannot be written again: `<<` and huge integers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := next((key for key in keys if isinstance(key, str) and keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated!r} twice", node.start_mark)
        if "<<" in keys:  # a few lines of merged keys of merged keys make billions
            raise yaml.constructor.ConstructorError(None, None, "'<<' instead of the keys themselves", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        if isinstance(value, int) and value.bit_length() > 63:
            raise yaml.constructor.ConstructorError(None, None, "an integer of more than 63 bits", node.start_mark)
        return value


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; `source` says in errors where it stands.

    Raises:
        SpecError: not YAML, or a value that cannot be, such as the date 2026-02-30.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise SpecError(f"{source}: not valid YAML (nested too deeply); mend it") from None
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, OverflowError) as err:  # some escape PyYAML as they are
        raise SpecError(f"{source}: not valid YAML ({err}); mend it") from err


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping with names for keys, in UTF-8, or in UTF-16 with its mark.

    Raises:
        SpecError: missing, unreadable, too large, not YAML or not a mapping.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8")
    except FileNotFoundError:
        where = "" if Path(path).is_absolute() else f" in {Path.cwd()}"
        raise SpecError(f"{path}: no such file{where}; {_HINT}") from None
    except UnicodeDecodeError as err:
        raise SpecError(f"{path}: cannot be read (byte {err.start} is not UTF-8); save it as UTF-8, or {_HINT}") from err
    except OSError as err:
        raise SpecError(f"{path}: cannot be read ({err.strerror}); {_HINT}") from err
    if len(content) > MOST_BYTES:
        raise SpecError(f"{path}: more than {MOST_BYTES} bytes are no spec; {_HINT}")
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SpecError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}; {_HINT}")
    return values


def path_of(text: str) -> str:
    """A path that a user wrote, with `~` replaced by the home folder.

    Raises:
        ValueError: a URL, or what no file can be called; says what to give.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError("a path, not a URL: download it first, such as with wget, and give the path of the file")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("a path without ~, for there is no such home folder") from None
    names = [len(os.fsencode(name)) for name in path.parts]
    if not text or "\0" in text or max(names, default=0) > 255 or sum(names) > 4000:
        raise ValueError("a path of at most 4,000 bytes, 255 between two slashes, not empty and without NUL")
    return str(path) if text.startswith("~") else text


PathText = Annotated[str, AfterValidator(path_of)]


def given_path(text: str | Path) -> Path:
    """`path_of` for what stands outside a spec, `~` replaced: not every shell does it in quotes or behind `=`.

    Raises:
        SpecError: as there.
    """
    try:
        return Path(path_of(str(text)))
    except ValueError as err:
        raise SpecError(f"{text}: expected {err}") from None


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def known_name(name: str, known: Collection[str]) -> str:
    """The name. Raises ValueError where it is none of these: what is allowed, for the error of a spec."""
    if name not in known:
        raise ValueError(f"one of {', '.join(known)}{nearest(name, known)}")
    return name


def _explain(error: Any, source: str, model: type[BaseModel]) -> str:
    """One pydantic error as one clause that names file, key, value and what is allowed."""
    if not error["loc"]:
        return f"{source}: expected {error['msg'].removeprefix('Value error, ')}"
    key = str(error["loc"][0])
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        return f"{source}: unknown key {key!r}{nearest(key, known) or '; known keys: ' + ', '.join(known)}"
    if error["type"] == "missing":
        return f"{source}: key {where!r} is missing"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").replace("valid tuple", "valid list")
    expected = expected.replace("String should match pattern", "text that matches").replace("String should have", "text of")
    return f"{source}: key {where!r}: expected {expected}, got {_short.repr(error['input'])}"
