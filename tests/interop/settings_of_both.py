"""What both sides are configured with, as any program that moves over would be: one set of names and values."""

from __future__ import annotations

import os


def settings(queue, exchange, environment=os.environ) -> dict:
    """Return the settings, written with the Queue and Exchange of either side."""
    side = environment["INTEROP_SIDE"]
    topic, direct, fan = (exchange(f"{kind}_of_{side}", kind) for kind in ("topic", "direct", "fanout"))
    quorum = "INTEROP_QUORUM" in environment
    more = {"queue_arguments": {"x-queue-type": "quorum"}} if quorum else {}
    plain = "topic" if quorum else "direct"  # Celery delays nothing that goes through a direct exchange
    accept = ["json", "pickle", "msgpack", "yaml"]
    return {
        "broker_url": environment["INTEROP_BROKER"],
        "result_backend": environment["INTEROP_RESULTS"],
        "accept_content": accept,
        "result_accept_content": accept,
        "result_serializer": environment.get("INTEROP_RESULT_SERIALIZER", "json"),
        "result_extended": True,
        "task_track_started": True,
        "broker_connection_retry_on_startup": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_queues": [
            queue("mixed", exchange("mixed", plain), "mixed", **more),
            queue(f"to_{side}", exchange(f"to_{side}", plain), f"to_{side}", **more),
            queue(f"topic_to_{side}", topic, "news.#"),
            queue(f"direct_to_{side}", direct, "key"),
            queue(f"fan_to_{side}", fan),
        ],
        "task_default_queue": "mixed",
    }
