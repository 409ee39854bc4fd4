"""The app of Celery's workers that are told what is broadcast."""

from __future__ import annotations

from celery_side import app
from kombu import Queue
from kombu.common import Broadcast

app.conf.task_queues = [Queue("mixed"), Broadcast("notices")]
