"""A piece of text with its style, in rich's words: what tables and graphs are made of."""

from __future__ import annotations

from typing import TypeAlias

Cell: TypeAlias = tuple[str, str]
