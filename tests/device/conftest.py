"""Fixtures of the device tests."""

from __future__ import annotations

from .qtest import qemu

__all__ = ["qemu"]
