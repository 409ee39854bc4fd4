"""All kinds of signatures; importing this makes every one of them known to `Signature.from_dict`."""

from __future__ import annotations

from umbel.app.canvas.chaining import _chain, chain
from umbel.app.canvas.chording import _chord, chord
from umbel.app.canvas.composite import Composite
from umbel.app.canvas.grouping import group
from umbel.app.canvas.mapping import chunks, xmap, xstarmap
from umbel.app.signature import Signature, maybe_signature, signature, subtask
from umbel.app.stamps import StampingVisitor

__all__ = [
    "Composite",
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
