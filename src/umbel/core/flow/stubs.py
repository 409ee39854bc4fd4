"""Stubs: small signatures that travel in place of a piece of a workflow which is kept in the result store.

A worker that knows stubs reads the piece and goes on with it; any other sends the stub as the task that it is, to the
queue that it names, where the workers that know it are.
"""

from __future__ import annotations

from typing import Any

from umbel.core.flow.shape import Sig, leaves, result_id

__all__ = ["FAIL_PIECE", "RESUME", "is_stub", "leaf_count", "make_stub", "stub_key", "telling", "trimmed"]

#: Name of the task that a stub is. Its last argument is the key of the piece; values come in front of it.
RESUME = "umbel.resume"
#: Name of the task that ends what a stub stands for, given the id of the stub and the key of the piece.
FAIL_PIECE = "umbel.fail_piece"


def make_stub(sig: Sig, key: str, queue: str) -> dict[str, Any]:
    """Return the stub of a frozen signature that is kept under `key`.

    It has the id of the signature's result and its place in the header that it belongs to, so that whoever meets its
    end or its failure knows whom to tell.
    """
    options: dict[str, Any] = {"task_id": result_id(sig), "queue": queue}
    count = leaf_count(sig)
    last = next(leaves(sig), None)
    if last is not None and last["options"].get("chord"):
        given = last["options"]
        options.update(chord=trimmed(given["chord"]))
        options.update((name, given[name]) for name in ("group_id", "group_index") if given.get(name) is not None)
    stub = {
        "task": RESUME,
        "args": [key],
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": False,
    }
    return stub if count == 1 else {**stub, "leaves": count}


def telling(stub: Sig, queue: str) -> dict[str, Any]:
    """Return the stub of a body with an errback, by which a worker that does not know stubs tells one that does."""
    errback = {
        "task": FAIL_PIECE,
        "args": [stub_key(stub)],
        "kwargs": {},
        "options": {"queue": queue},
        "subtask_type": None,
        "immutable": False,
    }
    return {**stub, "options": {**stub["options"], "link_error": [errback]}}


def leaf_count(sig: Sig) -> int:
    """Count the leaves of a frozen signature; a stub tells (`leaves`) when it stands for more than one."""
    return sum(leaf.get("leaves", 1) for leaf in leaves(sig))


def is_stub(sig: Sig) -> bool:
    """Tell whether a signature is a stub."""
    return sig.get("task") == RESUME


def stub_key(sig: Sig) -> str:
    """Return the key of the piece that a stub stands for."""
    key: str = sig["args"][-1]
    return key


def trimmed(sig: Sig) -> Sig:
    """Return the stub of a body without the body that waits for it in turn, so that stubs stay small at any depth.

    The piece itself has it; here it would be known only to a worker that cannot read pieces.
    """
    if not is_stub(sig) or "chord" not in sig["options"]:
        return sig
    return {**sig, "options": {name: value for name, value in sig["options"].items() if name != "chord"}}
