"""A producer that has published and forks: it and its children go on with what they inherited."""

from __future__ import annotations

from tests.process.lab import Lab

CHILDREN = 4
_SCRIPT = """
from umbel.app.ids import new_id
work = app.tasks["lab.work"]
path = os.environ["LAB_JOURNAL"]

def publish(count):
    for _ in range(count):
        id = new_id()
        journal.write(path, "intended", id)
        work.apply_async((0.0,), task_id=id)
        journal.write(path, "returned", id)

publish(1)
children = []
for _ in range(CHILDREN):
    pid = os.fork()
    if not pid:
        publish(EACH)
        os._exit(0)
    children.append(pid)
publish(EACH)
statuses = [os.waitpid(pid, 0)[1] for pid in children]
sys.exit(any(statuses))
"""


def publish_forked(lab: Lab, each: int) -> int:
    """Publish one task, fork, and publish `each` in the parent and in every child; return how many that are."""
    producer = lab.python(f"CHILDREN, EACH = {CHILDREN}, {each}\n{_SCRIPT}")
    out, _ = producer.communicate(timeout=30)
    assert producer.returncode == 0, out
    return 1 + each * (CHILDREN + 1)
