"""Helpers behind the notebooks that prove a vision transformer's port to an accelerator: right, and fast."""

__version__ = "0.1.0"
