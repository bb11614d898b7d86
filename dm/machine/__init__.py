"""Devices wired together: address spaces, PCI bus, guest time, saved state."""
