"""Heads written by the batch are the heads written one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.core.head import BatchHeads, HeadFields, HeadTemplate

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)


@given(
    task_id=st.uuids().map(str),
    argsrepr=TEXT,
    kwargsrepr=TEXT,
    limits=st.tuples(st.none() | st.floats(0.1, 1e3), st.none() | st.floats(0.1, 1e3)),
    priority=st.none() | st.integers(0, 9),
    origin=TEXT,
)
def test_a_head_of_a_batch_is_the_head_of_a_single_call(task_id, argsrepr, kwargsrepr, limits, priority, origin):
    template = HeadTemplate("proj.add", routing_key="celery", priority=priority, compression="application/x-gzip")
    shared = HeadFields("", timelimit=limits, origin=origin, ignore_result=True)
    batch = BatchHeads(template, shared, reply_to="somebody").write(task_id, argsrepr, kwargsrepr)
    fields = HeadFields(
        task_id, timelimit=limits, argsrepr=argsrepr, kwargsrepr=kwargsrepr, origin=origin, ignore_result=True
    )
    assert batch == template.write(fields, reply_to="somebody")
