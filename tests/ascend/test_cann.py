"""The toolkit of a host: its environment, and the opsets that its version takes."""

from __future__ import annotations

from pathlib import Path

import ascend_host
import pytest

from deit_helpers.ascend import cann
from deit_helpers.errors import ToolError


def test_set_env_is_sourced_where_the_environment_is_not_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ascend_host.install(tmp_path / "bin", "atc")
    script = tmp_path / "set_env.sh"
    script.write_text(f'export PATH="{tools}:$PATH"\nexport ASCEND_TOOLKIT_HOME=/somewhere\n')
    monkeypatch.setattr(cann, "SET_ENV", (str(script),))
    assert cann.environment()["ASCEND_TOOLKIT_HOME"] == "/somewhere"
    assert cann.tool("atc") == str(tools / "atc")
    script.write_text("exit 3\n")
    cann._sourced.cache_clear()
    with pytest.raises(ToolError, match=r"set_env\.sh: sourcing it failed \(exit code 3\): repair the CANN installation"):
        cann.environment()


@pytest.mark.parametrize(
    ("version", "opset", "fits"),
    [
        ("5.0.4", 13, True), ("5.1.RC1", 14, False), ("6.0.1", 17, False), ("7.0.0", 17, True), ("8.1.RC1", 8, False),
        ("9.1.0", 19, False), ("9.1.0", 18, True), (None, 99, True), ("unknown", 99, True),
    ],
)  # fmt: skip
def test_an_opset_is_checked_against_what_the_cann_version_takes(version: str | None, opset: int, fits: bool) -> None:
    if fits:
        cann.check_opset(opset, version)
    else:
        with pytest.raises(ToolError, match=f"opset {opset}: ATC of CANN {version} takes"):
            cann.check_opset(opset, version)
