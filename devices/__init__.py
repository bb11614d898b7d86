"""Devices, one in each file, and the machine types that are made of them."""
