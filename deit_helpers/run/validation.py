"""A mapping read from a YAML file -> a validated, frozen object; every error names file, key and what is allowed."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from typing_extensions import Self

from ..errors import SpecError


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
        except ValidationError as err:
            raise SpecError("; ".join(_explain(e, source, cls) for e in err.errors())) from err


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        SpecError: missing, unreadable, not YAML or not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; name a spec file such as params/demo.yaml") from None
    except (OSError, UnicodeDecodeError) as err:
        raise SpecError(f"{path}: cannot be read ({err}); name a spec file such as params/demo.yaml") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path}: not valid YAML ({' '.join(str(err).split())}); mend the file") from err
    if not isinstance(values, dict):
        raise SpecError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}")
    return values


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


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
    expected = expected.replace("String should match pattern", "text that matches")
    return f"{source}: key {where!r}: expected {expected}, got {error['input']!r}"
