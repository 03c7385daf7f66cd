"""The self-audit of a pasted recipe: a sound one breaks nothing, every contradiction is named with its lines and values."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from recorded import PUBLISHED

from deit_helpers.__main__ import main
from deit_helpers.audit import recipe_rules, rules

# Written for this test in the manner of a ModelZoo README, with nothing wrong in it: `batch8` prints one batch's figures only.
SOUND = """\
# ViT on Ascend310P

    python3 -m onnxsim --input-shape="8,3,224,224" vit.onnx vit_bs8.onnx
    atc --framework=5 --model=vit_bs8.onnx --output=vit_bs8 --input_shape="image:8,3,224,224" --soc_version=Ascend310P3
    ./benchmark.x86_64 -device_id=0 -batch_size=8 -om_path=vit_bs8.om -input_text_path=./val.info

| Om Model | Acc@1 | Acc@5 |
| BS1      | 79.50 | 94.80 |
| BS8      | 79.50 | 94.80 |
| Official | 79.9  | 95.0  |

{"title": "x", "value": [{"key": "Number of images", "value": "50000"}, {"key": "Number of classes", "value": "1000"}, \
{"key": "Top1 accuracy", "value": "79.5%"}, {"key": "Top2 accuracy", "value": "89.22%"}, \
{"key": "Top3 accuracy", "value": "92.39%"}, {"key": "Top4 accuracy", "value": "93.98%"}, \
{"key": "Top5 accuracy", "value": "94.8%"}]}

The drop is within 1 % in absolute points.

batch8, over 6250 batches, p50 8.1 ms, p99 9.5 ms:

[e2e] throughputRate: 93.9502, latency: 532197
[data read] throughputRate: 100.308, moduleLatency: 9.96932
[preprocess] throughputRate: 100.228, moduleLatency: 9.97721
[inference] throughputRate: 95.0294, Interface throughputRate: 122.054, moduleLatency: 9.64742
[postprocess] throughputRate: 95.0424, moduleLatency: 10.5216

One chip: 122.054 images/s.
"""

BROKEN = [  # rule, what is replaced, by what, what is said
    ("one Acc@1", '"79.5%"', '"79.69%"', "Acc@1 is 79.5 on line 8, 9 but 79.69 on line 12"),
    ("one Acc@1", "| BS1      | 79.50 | 94.80", "| BS1      | 79.50 | 94.90", "Acc@5 is 94.9 on line 8 but 94.8 on line 9, 12"),
    ("order of Acc@k", '"89.22%"', '"92.93%"', "line 12: 92.93 before 92.39"),
    ("card", "One chip: 122.054 images/s", "122.054x4=488.216", "488.216 is 4 times the 122.054 of one device on line 21"),
    ("images/s", "95.0424, moduleLatency: 10.5216", "11.8803, moduleLatency: 84.173", "line 22: 11.8803 is of batches, x 8"),
    ("chip", "One chip:", "One chip of a 310:", "310 on line 24 but 310P on line 1, 4, which is another chip"),
    ("batch size", "image:8,3", "image:16,3", "line 4: batch size 8 but 16"),
    ("batch size", "-batch_size=8", "-batch_size=4", "line 5: batch size 4 but 8"),
    ("places", "--model=vit_bs8", "--model=/models/vit_bs8", "vit_bs8.onnx on line 3 but /models/vit_bs8.onnx on line 4"),
    ("names", "vit.onnx vit_bs8.onnx", "vit.onnx vit_sim_bs8.onnx", "line 4 reads vit_bs8.onnx, made before it is vit_sim"),
    ("within", " in absolute points", "", "78.90 % (1 points below 79.90 %) is met; 79.10 % (1 % of it below 79.90 %) is met"),
    ("n", ", over 6250 batches", "", "from line 16: 'p50 8.1' of how many samples?"),
]  # fmt: skip


def broken(folder: Path, text: str) -> dict[str, str]:
    path = folder / "recipe.md"
    path.write_text(text, encoding="utf-8")
    return {row.rule: row.detail for row in recipe_rules.check(path) if row.outcome == rules.BROKEN}


def test_a_sound_recipe_breaks_nothing_and_every_rule_looks_at_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.md").write_text(SOUND)
    outcomes = {row.rule: row.outcome for row in recipe_rules.check(tmp_path / "recipe.md")}
    assert outcomes == dict.fromkeys(recipe_rules.RULES, rules.HOLDS) | {"card": rules.NOT_APPLICABLE}


def test_every_rule_has_a_doctored_recipe() -> None:
    assert {rule for rule, *_ in BROKEN} == recipe_rules.RULES.keys()


@pytest.mark.parametrize(("rule", "old", "new", "said"), BROKEN)
def test_a_contradiction_breaks_exactly_its_rule(tmp_path: Path, rule: str, old: str, new: str, said: str) -> None:
    assert old in SOUND
    details = broken(tmp_path, SOUND.replace(old, new))
    assert list(details) == [rule], details
    assert said in details[rule]


def test_the_old_recipes_contradictions_are_all_shown(tmp_path: Path) -> None:
    """Its printed performance of one Ascend 310, as published, and what its text makes of it."""
    blocks = "\n".join(f"batch{row[1]}:\n\n{printed}" for row, printed in PUBLISHED)
    text = SOUND[: SOUND.index("batch8,")].replace('"79.5%"', '"79.69%"').replace(" in absolute points", "")
    details = broken(tmp_path, f"{text}\n{blocks}\nInterface 103.795x4=415.18既是batch1 310单卡吞吐率\n")
    assert list(details) == ["one Acc@1", "card", "images/s", "chip", "within"]
    assert "79.5 on line 8, 9 but 79.69 on line 12" in details["one Acc@1"]
    assert "415.18 is 4 times the 103.795 of one device" in details["card"]
    assert "11.8803 is of batches, x 8 = 95.0424" in details["images/s"]


def test_text_that_is_no_recipe_asks_nothing_and_long_lines_are_read_at_once(tmp_path: Path) -> None:
    assert broken(tmp_path, "") == {}
    lines = (part * 20_000 for part in ("1", "a.", "bs", "/a", "[post", "drop ", "310 ", "|", "input-shape="))
    assert broken(tmp_path, "\n\n".join(lines)) == {}


def test_the_command_prints_what_is_broken_first_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "recipe.md"
    path.write_text(SOUND)
    assert CliRunner().invoke(main, ["audit", str(path)]).exit_code == 0
    path.write_text(SOUND.replace('"79.5%"', '"79.69%"'))
    result = CliRunner().invoke(main, ["audit", str(path)])
    assert result.exit_code == 1
    first, *others = result.output.splitlines()
    assert first.split(maxsplit=3) == ["broken", "one", "Acc@1", "Acc@1 is 79.5 on line 8, 9 but 79.69 on line 12"]
    assert len(others) == len(recipe_rules.RULES) - 1


def test_a_file_that_cannot_be_read_and_a_folder_that_is_no_run_are_one_line(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path)], [str(tmp_path / "none.md")]):
        result = CliRunner().invoke(main, ["audit", *arguments])
        assert result.exit_code == 1
        assert result.output.startswith("error: ")
        assert len(result.output.splitlines()) == 1
