"""The unicorn engine: x86 in real, protected and long mode by the Unicorn library.

It needs the optional package unicorn; importing this does not.
"""

from __future__ import annotations

from .engine import UnicornEngine

__all__ = ["UnicornEngine"]
