"""A real QEMU, where one is installed: what it answers is what ours must answer."""

from __future__ import annotations

import shutil

QEMU = shutil.which("qemu-system-x86_64") or shutil.which("qemu-system-i386")
NO_QEMU = "no qemu-system-x86_64 or -i386 is installed to compare with"
