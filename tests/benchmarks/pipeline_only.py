"""What `bench.py` starts to see cost against N: 04 and 05 of a run, in a process that never loaded torch or an exporter."""

import sys
import time
from pathlib import Path

from deit_helpers import artifacts, infer, store, timing

opened = artifacts.open_run(Path(sys.argv[1]))
run = opened.at(opened.spec.batch_sizes[0])
seconds = []
for stage in (store.preprocess, infer.infer):
    start = time.perf_counter()
    stage(run)
    seconds.append(time.perf_counter() - start)
print(*seconds, timing.peak_memory_mib())
