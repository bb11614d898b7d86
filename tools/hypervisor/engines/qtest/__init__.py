"""The engine that has no processor: a client of QEMU's qtest protocol makes every access."""

from __future__ import annotations

from .engine import QtestEngine
from .server import QtestServer

__all__ = ["QtestEngine", "QtestServer"]
