"""The line that a worker's log gets for the end of a run, written by the process that ran the task."""

from __future__ import annotations

import logging

from umbel.app.execution import Job, Report

_logger = logging.getLogger("celery.worker")

#: How loudly an outcome is said.
_LEVELS = {
    "success": logging.INFO,
    "retry": logging.INFO,
    "ignore": logging.INFO,
    "revoked": logging.INFO,
    "requeue": logging.INFO,
    "replaced": logging.INFO,
    "ended": logging.WARNING,
}


def log_report(job: Job, report: Report) -> None:
    """Write the line that the runner made about an outcome, and take it out of the report.

    The task is not current any more, so the record says itself which it was. Celery: `record.data`.
    """
    if report.log:
        # Celery: failures that the task expects (`throws`) are INFO.
        level = logging.INFO if report.expected else _LEVELS.get(report.kind, logging.ERROR)
        if _logger.isEnabledFor(level):
            data = {"id": job.id, "name": job.task, "runtime": report.runtime}
            extra = {"task_id": job.id, "task_name": job.task, "data": data}
            _logger.log(level, "%s", report.log, extra=extra)
        report.log = ""
