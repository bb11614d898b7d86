"""Saved state as people look at it: finds it in a file, names its registers, compares it."""

from __future__ import annotations

from .describe import DeviceView, FieldView, StateView, view
from .difference import differences
from .files import read_state

__all__ = ["DeviceView", "FieldView", "StateView", "differences", "read_state", "view"]
