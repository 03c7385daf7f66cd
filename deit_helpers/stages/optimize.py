"""02_optimize: the exported graph -> one static graph per batch size, edited as the spec asks, with certificates.

Nothing is trusted: the simplifier's result and every edit are run against the graph before them, and the chain as a whole
against the exported graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from .. import files
from ..errors import DeitError, GraphError
from ..evidence import certificate
from ..evidence.certificate import UNEQUAL, Observation
from ..model import alignment, simplify
from ..model.edits import EDITS
from ..model.graph import Graph, with_shapes
from ..run import records
from ..run.folder import Run
from ..run.spec import INEXACT_EDITS

_OF_THE_SYMBOLIC_BATCH = frozenset({"Where", "Equal", "Expand", "Shape", "ConstantOfShape"})


def optimize(run: Run) -> dict[str, Any]:
    """Stage 02: fix the batch size, simplify, apply the spec's edits, and certify each step and the whole.

    Returns:
        The content of `optimize.json`.

    Raises:
        GraphError: an edit found nothing to edit, or a graph that must be equivalent is not.
    """
    records.ensure(run, "optimize", lambda: _optimize(run))
    return run.read("optimize")


def fix_batch(graph: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """Set the first dimension of every graph input and output, in place."""
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch_size
    return graph


def static_batch(graph: onnx.ModelProto) -> int:
    """The batch size built into a graph.

    Raises:
        GraphError: inputs and outputs disagree, or a dimension is symbolic.
    """
    sizes = {value.type.tensor_type.shape.dim[0].dim_value for value in [*graph.graph.input, *graph.graph.output]}
    if len(sizes) != 1 or 0 in sizes:
        raise GraphError(f"the graph's inputs and outputs have batch sizes {sorted(sizes)}, expected one positive number")
    return sizes.pop()


def _optimize(run: Run) -> None:
    chosen = certificate.probes(run)
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
        first = certificate.observe(run.file("onnx"), chosen, run.size)
        path, rows, base = _simplified(run, Path(folder), chosen, first)
        proto, last = onnx.load(path), base
        simplified = Graph(proto)
        for number, name in enumerate(run.spec.edits):
            following = Path(folder) / f"{number}_{name}.onnx"
            graph = Graph(proto)
            try:
                EDITS[name].apply(graph, run.spec.recipe)
                proto = graph.proto()
            except GraphError as err:
                why = "" if rows[0]["applied"] else f"simplify was not applied ({rows[0]['reason']}), so "
                raise GraphError(f"{why}{'' if str(err).startswith(name) else name + ': '}{err}") from err
            onnx.save(proto, following)
            seen = certificate.observe(following, chosen, run.size)
            rows.append(_declared(name, certificate.certify(name, last, seen)))
            last = seen
        chain = certificate.certify("chain", first, last)
        inexact = [name for name in run.spec.edits if name in INEXACT_EDITS]
        if chain["verdict"] == UNEQUAL and not inexact:
            raise _unequal(chain)
        if static_batch(proto) != run.batch_size:
            raise GraphError(f"the graph came out with batch size {static_batch(proto)}, expected {run.batch_size}")
        onnx.checker.check_model(proto, full_check=True)
        with files.atomic(run.file("static_onnx")) as temporary:
            onnx.save(proto, temporary)
    final = Graph(proto)
    files.write_json(
        run.file("optimize"),
        {
            "batch_size": run.batch_size,
            "opset": final.opset,
            "input_name": last.interface["input"]["name"],
            "input_shape": last.interface["input"]["shape"],
            "input_dtype": last.interface["input"]["dtype"],
            "output_shape": last.interface["output"]["shape"],
            "edits": rows,
            "chain": chain,
            "inexact_edits": inexact,
            "operators_before": first.operators,
            "operators_after": last.operators,
            "operators_simplified": base.operators,
            "alignment": {
                side: {"matrices": alignment.table(graph), "broken_runs": alignment.broken_runs(graph)}
                for side, graph in (("before", simplified), ("after", final))
            },
            "block": {"before": alignment.block(simplified), "after": alignment.block(final)},
        },
    )


def _simplified(
    run: Run, folder: Path, chosen: list[certificate.Probe], first: Observation
) -> tuple[Path, list[dict[str, Any]], Observation]:
    """The simplified graph, or the shape-fixed one when the simplifier failed or its graph is not equivalent."""
    fixed, path = folder / "fixed.onnx", folder / "simplified.onnx"
    onnx.save(fix_batch(onnx.load(run.file("onnx")), run.size), fixed)
    why = simplify.simplify(fixed, path)
    if why is None:
        try:
            onnx.save(Graph(with_shapes(onnx.load(path))).proto(), path)
            seen = certificate.observe(path, chosen, run.size)
        except (DecodeError, DeitError) as err:
            why = f"the simplified graph is damaged: {' '.join(str(err).split())}"
        else:
            row = certificate.certify("simplify", first, seen)
            left = sorted(_OF_THE_SYMBOLIC_BATCH & seen.operators.keys())
            if row["verdict"] != UNEQUAL and not left:
                return path, [_declared("simplify", row)], seen
            why = f"left {', '.join(left)} of the symbolic batch" if left else "the simplified graph is not equivalent"
    onnx.save(with_shapes(onnx.load(fixed)), fixed)
    seen = certificate.observe(fixed, chosen, run.size)
    row = {**certificate.certify("simplify", first, seen), "applied": False, "reason": why}
    return fixed, [_declared("simplify", row)], seen


def _declared(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what the edit claims.

    Raises:
        GraphError: an edit declared exact is not.
    """
    declared = name not in INEXACT_EDITS
    if declared and row["verdict"] == UNEQUAL:
        raise _unequal(row)
    purpose = EDITS[name].purpose if name in EDITS else "what the symbolic batch left is folded"
    return {**row, "declared_exact": declared, "purpose": purpose}


def _unequal(row: dict[str, Any]) -> GraphError:
    worst = max(row["probes"], key=lambda probe: probe["max_abs_diff"])
    found = f"max abs diff {row['max_abs_diff']:.2g} (on {worst['kind']}), top-1 agreement {row['top1_agreement']:.1f} %"
    expected = f"expected at most {row['max_abs_diff_allowed']:.2g} and 100 %"
    return GraphError(
        f"{row['name']}: the graph is not equivalent, {found}, {expected}: leave the edit out and report the graph"
    )
