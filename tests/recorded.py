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
