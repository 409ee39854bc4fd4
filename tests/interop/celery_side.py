"""The app of Celery's workers and producers. Imported in Celery's own environment, never in the project's."""

from __future__ import annotations

import os

from celery import Celery
from fleet_tasks import define
from kombu import Exchange, Queue
from settings_of_both import settings


def make(**more):
    """Return a Celery app with the tasks of the fleet."""
    made = Celery("celery_side")
    made.conf.update({**settings(Queue, Exchange), "broker_connection_timeout": 5, **more})
    define(made)
    return made


visibility = os.environ.get("INTEROP_VISIBILITY")
app = make(**({"broker_transport_options": {"visibility_timeout": float(visibility)}} if visibility else {}))
