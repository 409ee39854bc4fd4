"""Trees made at random give the same value in the caller and message by message, with stubs and without."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.app.canvas.canvas_kit import Kit
from umbel import chain, chord, group


def _tree(kit: Kit, rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return (kit.keep.si if rng.random() < 0.2 else kit.keep.s)(rng.randint(0, 9))
    if kind < 0.55:
        return chain(*(_tree(kit, rng, depth - 1) for _ in range(rng.randint(1, 4))))
    if kind < 0.8:
        return group([_tree(kit, rng, depth - 1) for _ in range(rng.randint(1, 3))])
    return chord([_tree(kit, rng, depth - 1) for _ in range(rng.randint(0, 3))], _tree(kit, rng, depth - 1))


@pytest.mark.parametrize("limit", [0, 4096, None])
def test_a_random_tree_has_one_value_however_it_runs(tmp_path: Path, limit: int | None) -> None:
    kit = Kit(tmp_path, workflow_inline_limit=limit)
    for seed in range(8):
        tree = _tree(kit, random.Random(seed), 3)
        assert kit.value(tree) == tree.apply().get(), f"seed {seed}: {tree!r}"
    kit.app.close()
