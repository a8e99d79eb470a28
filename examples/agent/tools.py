"""The agent's tools: a shop of three orders, served as activities: `engine worker examples.agent.tools:ACTIVITIES`.

A tool checks what it is given, for a model made it up; and what it does in the world it does once for an order, however
often it is asked.
"""

from __future__ import annotations

import threading

from enginekit.messages.json import JSON
from enginekit.worker import Activity, ActivityError

REFUND_LIMIT = 500


class Shop:
    """Orders, and which of them have been paid back."""

    def __init__(self) -> None:
        self.orders: dict[str, dict[str, JSON]] = {
            "A-1001": {"item": "kettle", "total": 45, "state": "on its way"},
            "A-1002": {"item": "espresso machine", "total": 890, "state": "on its way"},
            "A-1003": {"item": "mug", "total": 12, "state": "delivered"},
        }
        self.refunds: dict[str, str] = {}
        self._lock = threading.Lock()

    def look_up_order(self, data: JSON) -> JSON:
        """`{"order": "A-1001"}` → the order, and whether it was refunded."""
        name, order = self._order(data)
        return {"order": name, **order, "refunded": name in self.refunds}

    def refund_order(self, data: JSON) -> JSON:
        """`{"order": "A-1001", "reason": "..."}` → `{"refunded": 45}`. Once: a repeat answers the same."""
        name, order = self._order(data)
        if order["state"] == "delivered":
            raise ActivityError("RefundRefused", f"order {name} was delivered")
        total = order["total"]
        assert isinstance(total, int)
        if total > REFUND_LIMIT:
            raise ActivityError("RefundRefused", f"{total} is more than {REFUND_LIMIT}: a person has to decide")
        with self._lock:
            self.refunds.setdefault(name, str(data.get("reason", "")) if isinstance(data, dict) else "")
        return {"refunded": total}

    def activities(self) -> dict[str, Activity]:
        return {"look-up-order": self.look_up_order, "refund-order": self.refund_order}

    def _order(self, data: JSON) -> tuple[str, dict[str, JSON]]:
        name = data.get("order") if isinstance(data, dict) else None
        if not isinstance(name, str) or name not in self.orders:
            raise ActivityError("NoSuchOrder", f"there is no order {name!r:.50}")
        return name, self.orders[name]


ACTIVITIES = Shop().activities()
