"""The toolstack's side: what creates guests, watches over them and ends them."""

from __future__ import annotations
