"""The app of umbel's workers that are told what is broadcast, and that share a queue at a fanout exchange."""

from __future__ import annotations

from umbel_side import app

from umbel import Exchange, Queue
from umbel.core.queues import Broadcast

app.conf.task_queues = [Queue("mixed"), Broadcast("notices"), Queue("shared", Exchange("board", "fanout"))]
