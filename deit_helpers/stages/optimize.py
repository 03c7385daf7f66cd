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
from ..graph import alignment, simplify
from ..graph.edits import EDITS
from ..graph.flops import flops_per_batch
from ..graph.graph import Graph, fix_batch, with_shapes
from ..run.edits import INEXACT_EDITS
from ..run.folder import Run
from ..run.records import makes

_OF_THE_SYMBOLIC_BATCH = frozenset({"Where", "Equal", "Expand", "Shape", "ConstantOfShape"})


@makes("optimize")
def optimize(run: Run) -> dict[str, Any]:
    """Stage 02: fix the batch size, simplify, edit, certify every step and the whole; returns the content of `optimize.json`.

    Raises:
        GraphError: an edit found nothing to edit, or a graph that must be equivalent is not.
    """
    probes = certificate.probes(run)
    with tempfile.TemporaryDirectory(prefix="deit-report-") as folder:
        exported = certificate.observe(run.file("onnx"), probes, run.size)
        path, row, simplified = _simplified(run, Path(folder), probes, exported)
        before = onnx.load(path)
        after, rows, edited = _edited(run, Path(folder), probes, before, row, simplified)
    chain = certificate.certify("chain", exported, edited)
    inexact = [name for name in run.spec.edits if name in INEXACT_EDITS]
    if chain["verdict"] == UNEQUAL and not inexact:
        raise certificate.unequal(chain)
    sizes = {edited.interface[side]["shape"][0] for side in ("input", "output")}  # 0: symbolic
    if sizes != {run.batch_size}:
        raise GraphError(f"the graph came out with batch sizes {sorted(sizes)}, expected {run.batch_size}")
    onnx.checker.check_model(after, full_check=True)
    flops, graphs = flops_per_batch(after), {"before": Graph(before), "after": Graph(after)}
    with files.atomic(run.file("static_onnx")) as temporary:
        onnx.save(after, temporary)
    return {
        "batch_size": run.batch_size,
        "input_name": edited.interface["input"]["name"],
        "input_shape": edited.interface["input"]["shape"],
        "input_dtype": edited.interface["input"]["dtype"],
        "output_shape": edited.interface["output"]["shape"],
        "edits": rows,
        "chain": chain,
        "inexact_edits": inexact,
        "flops_per_image": flops / run.size if flops else None,
        "operators_before": exported.operators,
        "operators_after": edited.operators,
        "operators_simplified": simplified.operators,
        "opset": graphs["after"].opset,
        "alignment": {
            side: {"matrices": alignment.table(graph), "broken_runs": alignment.broken_runs(graph)}
            for side, graph in graphs.items()
        },
        "block": {side: alignment.block(graph) for side, graph in graphs.items()},
    }


def _edited(
    run: Run,
    folder: Path,
    probes: list[certificate.Probe],
    proto: onnx.ModelProto,
    simplify_row: dict[str, Any],
    last: Observation,
) -> tuple[onnx.ModelProto, list[dict[str, Any]], Observation]:
    """The graph after the spec's edits, the rows of their certificates behind that of simplifying, and what it did."""
    rows = [simplify_row]
    for number, name in enumerate(run.spec.edits):
        graph = Graph(proto)
        try:
            EDITS[name].apply(graph, run.spec.recipe)
            proto = graph.proto()
        except GraphError as err:
            why = "" if simplify_row["applied"] else f"simplify was not applied ({simplify_row['reason']}), so "
            raise GraphError(f"{why}{'' if str(err).startswith(name) else name + ': '}{err}") from err
        path = folder / f"{number}_{name}.onnx"
        onnx.save(proto, path)
        observation = certificate.observe(path, probes, run.size)
        rows.append(certificate.declared(name, certificate.certify(name, last, observation)))
        last = observation
    return proto, rows, last


def _simplified(
    run: Run, folder: Path, probes: list[certificate.Probe], exported: Observation
) -> tuple[Path, dict[str, Any], Observation]:
    """The simplified graph, or the shape-fixed one when the simplifier failed or its graph is not equivalent."""
    fixed, path = folder / "fixed.onnx", folder / "simplified.onnx"
    onnx.save(fix_batch(onnx.load(run.file("onnx")), run.size), fixed)
    why = simplify.simplify(fixed, path)
    if why is None:
        try:
            onnx.save(Graph(with_shapes(onnx.load(path))).proto(), path)
            observation = certificate.observe(path, probes, run.size)
        except (DecodeError, DeitError) as err:
            why = f"the simplified graph is damaged: {' '.join(str(err).split())}"
        else:
            row = certificate.certify("simplify", exported, observation)
            left = sorted(_OF_THE_SYMBOLIC_BATCH & observation.operators.keys())
            if row["verdict"] != UNEQUAL and not left:
                return path, certificate.declared("simplify", row), observation
            why = f"left {', '.join(left)} of the symbolic batch" if left else "the simplified graph is not equivalent"
    onnx.save(with_shapes(onnx.load(fixed)), fixed)
    observation = certificate.observe(fixed, probes, run.size)
    row = {**certificate.certify("simplify", exported, observation), "applied": False, "reason": why}
    return fixed, certificate.declared("simplify", row), observation
