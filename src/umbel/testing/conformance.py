"""The suite that says whether an engine is right. Subclass the classes and return an engine from `engine`.

    class TestBroker(conformance.BrokerSuite):
        @pytest.fixture
        def engine(self, tmp_path):
            engine = open_engine(f"sqlite:///{tmp_path}/q.db", {})
            yield engine
            engine.close()

Every test speaks to the protocols of `umbel.engine.seam` only, and hands in the time itself.
"""

from __future__ import annotations

from umbel.testing.conformance_broker import BrokerSuite
from umbel.testing.conformance_join import AtomicJoinSuite, JoinSuite
from umbel.testing.conformance_parts import message
from umbel.testing.conformance_plans import PlanSuite
from umbel.testing.conformance_shelf import DeadOwnerSuite, ShelfSuite
from umbel.testing.conformance_store import AtomicSuite, BusSuite, DeadLetterSuite, StoreSuite

__all__ = [
    "AtomicJoinSuite",
    "AtomicSuite",
    "BrokerSuite",
    "BusSuite",
    "DeadLetterSuite",
    "DeadOwnerSuite",
    "JoinSuite",
    "PlanSuite",
    "ShelfSuite",
    "StoreSuite",
    "message",
]
