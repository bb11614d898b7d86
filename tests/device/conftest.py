"""Fixtures of the device tests."""

from __future__ import annotations

from .oracle import random
from .qtest import monitored, qemu

__all__ = ["monitored", "qemu", "random"]
