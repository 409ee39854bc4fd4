"""The app of umbel's workers."""

from __future__ import annotations

import os

from fleet_tasks import define
from settings_of_both import settings

from umbel import Exchange, Queue, Umbel

lease = float(os.environ.get("INTEROP_LEASE", "30"))
app = Umbel("umbel_side")
app.conf.update({**settings(Queue, Exchange), "worker_lease": lease, "worker_heartbeat": lease / 3})
define(app)
