"""Files of the vendor's tools as published, for more than one test."""

from __future__ import annotations

# (images, batch size, wall seconds, rates) and the file that CANN 5.1.RC1 wrote for them, on one Ascend 310.
PUBLISHED = [
    (
        (
            50_000,
            1,
            569.604,
            {"data read": 92.9318, "preprocess": 92.6819, "inference": 88.0032, "postprocess": 88.0046},
            103.795,
        ),
        """\
[e2e] throughputRate: 87.7802, latency: 569604
[data read] throughputRate: 92.9318, moduleLatency: 10.7606
[preprocess] throughputRate: 92.6819, moduleLatency: 10.7896
[inference] throughputRate: 88.0032, Interface throughputRate: 103.795, moduleLatency: 10.7968
[postprocess] throughputRate: 88.0046, moduleLatency: 11.363
""",
    ),
    (
        (
            50_000,
            8,
            532.197,
            {"data read": 100.308, "preprocess": 100.228, "inference": 95.0294, "postprocess": 95.0424},
            122.054,
        ),
        """\
[e2e] throughputRate: 93.9502, latency: 532197
[data read] throughputRate: 100.308, moduleLatency: 9.96932
[preprocess] throughputRate: 100.228, moduleLatency: 9.97721
[inference] throughputRate: 95.0294, Interface throughputRate: 122.054, moduleLatency: 9.64742
[postprocess] throughputRate: 11.8803, moduleLatency: 84.173
""",
    ),
]

# What ais_bench of 2022 wrote (`sumary.json`) for GhostNet at batch size 16 on a 310P, in part: it has no list of times.
GHOSTNET = """\
{"filesinfo": {}, "NPU_compute_time": {"min": 3.8949999809265137,
"mean": 4.652794558563232,
"percentile(99%)": 9.564919853210439},
"throughput": 3438.7935677393734}
"""

# Headers of msprof's tables: the columns that are read, beside the one of the task.
OP_SUMMARY = "OP Type,Op Name,Task Type,Task Duration(us)"
OP_STATISTIC = "OP Type,Count,Total Time(us)"


def table_of_chips(*rows: str) -> str:
    """The table of `npu-smi info` with these rows."""
    border = "+======================+===============+=============================================+"
    head = ["| npu-smi 25.6.rc1    Version: 25.6.rc1 |", border, "| NPU Name | Health | Power(W) Temp(C) |"]
    return "\n".join([border, *head, border, *rows, border, ""])
