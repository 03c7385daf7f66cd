"""What `bench.py` starts to see cost against N: 04 and 05 of a run, in a process that never loaded torch or an exporter."""

import sys
import time
from pathlib import Path

from deit_helpers import open_run
from deit_helpers.run import host
from deit_helpers.stages import infer, preprocess

opened = open_run(Path(sys.argv[1]))
run = opened.at(opened.spec.batch_sizes[0])
seconds = []
for stage in (preprocess.preprocess, infer.infer):
    start = time.perf_counter()
    stage(run)
    seconds.append(time.perf_counter() - start)
print(*seconds, host.peak_memory_mib())
