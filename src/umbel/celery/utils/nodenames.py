"""Import point `celery.utils.nodenames`; written by `scripts/gen_import_points.py`."""

from __future__ import annotations

from umbel.app.nodenames import default_nodename, gethostname, host_format, node_format, nodename, nodesplit
from umbel.celery.import_points import missing_names

__all__ = ["default_nodename", "gethostname", "host_format", "node_format", "nodename", "nodesplit"]

__getattr__ = missing_names("utils.nodenames")
