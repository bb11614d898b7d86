"""Tests of the laboratory that need neither root nor QEMU."""
