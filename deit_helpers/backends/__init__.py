"""Runtimes behind one small contract, one file each. Importing this folder imports none of them; its README shows a new one."""

from .contract import Backend, Execution, Loaded, Options, Profiler, Queued
from .pool import Pool, Prediction, open_backend

__all__ = ["Backend", "Execution", "Loaded", "Options", "Pool", "Prediction", "Profiler", "Queued", "open_backend"]
