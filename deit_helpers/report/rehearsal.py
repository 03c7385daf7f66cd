"""What the rehearsal shows: how large activations get, what fp16 and bf16 make of them, and what to keep in float32."""

from __future__ import annotations

from typing import Any

from ..run.folder import Run
from .elements import Banner, Cell, Facts, Table
from .words import notes as notes

MAX_FP16 = 65504
PARTS = ("LayerNorm 1", "attention", "LayerNorm 2", "MLP", "residual")
COUNTS = ("overflow", "saturated", "to_zero", "subnormal")
RANKED = 10  # so many parts are listed


def _place(row: dict[str, Any]) -> str:
    return f"block {row['block']}'s {row['part']}" if row["part"] else f"the {row['block']}"


def _by_block(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The nodes whose results leave their operator, by block."""
    rows = [row for row in run.read("rehearsal")["nodes"] if not row["inner"]]
    return {block: [row for row in rows if row["block"] == block] for block in dict.fromkeys(row["block"] for row in rows)}


def fits(run: Run) -> Banner:
    """Whether fp16 holds this model's activations, in a sentence."""
    facts = run.read("rehearsal")
    results, keep = [row for rows in _by_block(run).values() for row in rows], f"keep these {len(facts['keep'])} nodes in fp32"
    largest, changed = max(results, key=lambda row: row["max_abs"]), facts["comparison"]["fp16"]["changed"]
    share = f"{largest['max_abs']:,.4g} in {_place(largest)}, {largest['max_abs'] / MAX_FP16:.2%} of 65504"
    text = f"The largest activation is {share}. {facts['images']} images on a CPU: a rehearsal, no device was measured."
    if places := dict.fromkeys(_place(row) for row in results if row["overflow"]):
        return Banner("fail", f"fp16 overflows in {', '.join(places)}: {keep}.", text)
    if changed:
        advice = keep if facts["keep"] else "no few nodes in fp32 bring them back"
        return Banner("inconclusive", f"Nothing overflows, but rounding to fp16 changes {changed} answers: {advice}.", text)
    return Banner("pass", "Nothing overflows in fp16, and no answer changes.", text)


def blocks(run: Run) -> Table:
    """One row per block: the largest value of each part, and what fp16 cannot hold."""
    facts, rows = run.read("rehearsal"), list[list[Cell]]()
    for block, nodes in _by_block(run).items():
        parts = [max((row["max_abs"] for row in nodes if row["part"] == part), default=None) for part in PARTS]
        largest = max(row["max_abs"] for row in nodes)
        rows.append([block, *parts, largest, MAX_FP16 / largest, *(sum(row[key] for row in nodes) for key in COUNTS)])
    headings = " | ".join(f"{part.replace('LayerNorm', 'norm')}:.3g" for part in PARTS)
    return Table(
        f"Largest |x| in float32, {facts['images']} images, batch size {facts['batch_size']}; blocks count from 0; headroom is "
        "65504 over it. In fp16, overflow becomes infinity, or is saturated where the chip saturates; underflow becomes zero",
        f"block | {headings} | all:.3g | headroom:,.0f | overflow:, | saturated:, | underflow:, | subnormal:,",
        rows,
        alarm=frozenset(number for number, row in enumerate(rows) if row[-len(COUNTS)]),
    )


def comparison(run: Run) -> Table:
    """Every precision against float32 on the same images."""
    facts, rows = run.read("rehearsal"), list[list[Cell]]()
    for name, row in facts["comparison"].items():
        figures = map(row.get, ("top1_agreement_percent", "max_abs_diff", "rms_diff", "not_finite", "top1_percent"))
        rows.append([name, *figures, *map(row["paired"].get, ("only_this_right", "only_reference_right", "p_value"))])
    return Table(
        f"Against float32 on the same {facts['images']} images, on a CPU; the logits' deviation is {facts['std']:.2g}. "
        "Sums are float32; in fp16 throughout they are rounded every 16 terms, LayerNorm and Softmax after every step",
        "precision | same top-1 %:.2f | max abs diff:.2g | rms diff:.2g | not finite | Acc@1:.2f | gained | lost | exact p:.2g",
        rows,
    )


def ranking(run: Run) -> Table:
    """The parts that fp16 costs most."""
    facts = run.read("rehearsal")
    rows = [[row["block"], row["part"] or None, row["rms_diff"], len(row["nodes"])] for row in facts["ranking"][:RANKED]]
    caption = f"Error of the logits when this part alone is in fp16, the {len(rows)} largest, {facts['ranked_images']} images"
    return Table(caption, "block | part | rms diff:.2g | nodes", rows)


def keep_list(run: Run) -> Facts:
    """What to keep in float32: each program's flag, and the file that it names."""
    names, folder = run.read("rehearsal")["keep"], f"reports/{run.folder.name}/rehearsal"
    lines: dict[str, Cell] = {
        "spec, by node": f"atc: {{keep_dtype: {folder}/keep_dtype.cfg}}",
        "spec, by type": f"atc: {{precision_mode_v2: mixed_float16, modify_mixlist: {folder}/modify_mixlist.json}}",
        "ONNX Runtime": f"convert_float_to_float16(model, **json.load(open('{folder}/onnxruntime_fp16.json'))); "
        "this converter may leave casts to fp16 between kept nodes, where a value overflows still: look for them",
        "TensorRT": f"trtexec --onnx=… $(cat {folder}/tensorrt_precisions.txt)",
    }
    if not names:
        return Facts("Nothing to keep in fp32", {"nodes": "none; the lists in rehearsal/ are empty, no flag is needed"})
    return Facts(f"{len(names)} nodes to keep in fp32", {**lines, "nodes": ", ".join(names)})
