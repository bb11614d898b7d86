"""Xen as the other side: libxen* through ctypes, loaded when they are first used."""
