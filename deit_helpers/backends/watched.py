"""`python -m deit_helpers.backends.watched SPEC BATCH_SIZE BATCHES`: the program that msprof watches."""

from __future__ import annotations

import sys

from ..data.batches import batches
from ..run.folder import Run
from .bench import open_model


def main(spec: str, batch_size: int, times: int) -> None:
    """Run the first images of the store through the device model, as many batches as asked for."""
    run = Run.resolve(spec, batch_size)
    with open_model(run) as model:
        batch = next(batches(run, batch_size, model.dtype)).tensor
        for _ in range(times):
            model.infer(batch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
