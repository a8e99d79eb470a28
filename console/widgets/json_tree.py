"""JSON that folds: objects and arrays open and close with Enter or Space."""

from __future__ import annotations

import msgspec
from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from console.words import safe
from enginekit.messages.json import JSON

PARTS_SHOWN = 500
TEXT_SHOWN = 2000


class JsonTree(Tree[None]):
    """Shows one value at a time. Parts that are nested deeper than two levels are folded at first."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__("", id=id)
        self.show_root = False
        self.guide_depth = 2

    def show(self, value: JSON) -> None:
        self.clear()
        self._fill(self.root, value, 0)
        self.root.expand()

    def _fill(self, node: TreeNode[None], value: JSON, depth: int) -> None:
        parts: list[tuple[str, JSON]] = []
        if isinstance(value, dict):
            parts = list(value.items())
        elif isinstance(value, list):
            parts = [(str(at), each) for at, each in enumerate(value)]
        for name, part in parts[:PARTS_SHOWN]:
            if isinstance(part, dict | list) and part:
                label = Text(f"{safe(name)} ", "bold").append(_size(part), "bright_black")
                self._fill(node.add(label, expand=depth < 1), part, depth + 1)
            else:
                text = safe(msgspec.json.encode(part).decode()[:TEXT_SHOWN])
                label = Text(f"{safe(name)}: ", "bold").append(text, _style(part))
                node.add_leaf(label)
        if len(parts) > PARTS_SHOWN:
            node.add_leaf(Text(f"… {len(parts) - PARTS_SHOWN:,} more", "bright_black"))


def _size(part: dict[str, JSON] | list[JSON]) -> str:
    return f"{{{len(part)}}}" if isinstance(part, dict) else f"[{len(part)}]"


def _style(part: JSON) -> str:
    if isinstance(part, str):
        return "green"
    return "yellow" if part is None or isinstance(part, bool) else "cyan"
