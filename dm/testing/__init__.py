"""Tests that every device passes: for the authors of devices, never imported by ioreqd-dm."""

from __future__ import annotations

from .generic import generic_device_tests

__all__ = ["generic_device_tests"]
