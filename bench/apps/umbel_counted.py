"""The app under measurement with its calls counted, in the client and in each of the worker's processes."""

from __future__ import annotations

import os
from pathlib import Path

import calls

calls.start(Path(os.environ["BENCH_MARKER"]).parent)

from umbel_app import app, noop, send_add, send_noop  # noqa: E402 - after the counting began

__all__ = ["app", "noop", "send_add", "send_noop"]
