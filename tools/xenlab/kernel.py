"""How a Linux bzImage wraps its ELF kernel (Linux Documentation/arch/x86/boot.rst).

The laboratory boots the bare ELF file: to decompress it under emulation costs seconds per boot.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib

from dm.errors import HostError
from tools.xenlab.needs import find_tool

__all__ = ["extract_kernel"]

_SETUP_SECTS = 0x1F1
_SIGNATURE = 0x202
_PAYLOAD = 0x248  # payload_offset, payload_length: u32 each, relative to the protected-mode code
_SECTOR = 512


def _zstd(data: bytes) -> bytes:
    tool = find_tool("zstd")
    if tool is None:
        raise HostError("zstd: not installed")
    done = subprocess.run([tool, "-dcq"], input=data, capture_output=True, check=False)
    return done.stdout


def extract_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside the bzImage ``image``; raise HostError if there is none.

    Knows the compressions that Debian has used: xz, gzip and zstd. The last four bytes of the
    payload are the kernel's length, which the build appends.
    """
    if len(image) < _PAYLOAD + 8 or image[_SIGNATURE : _SIGNATURE + 4] != b"HdrS":
        raise HostError("dom0 kernel: not a bzImage")
    sectors = image[_SETUP_SECTS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (sectors + 1) * _SECTOR + offset
    payload = image[start : start + length]
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            kernel = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x1f\x8b"):
            kernel = zlib.decompressobj(31).decompress(payload)
        elif payload.startswith(b"\x28\xb5\x2f\xfd"):
            kernel = _zstd(payload[:-4])
        else:
            raise HostError(f"dom0 kernel: unknown compression {payload[:6].hex()}")
    except (lzma.LZMAError, zlib.error) as error:
        raise HostError(f"dom0 kernel: cannot decompress: {error}") from error
    if not kernel.startswith(b"\x7fELF"):
        raise HostError("dom0 kernel: its payload is no ELF file")
    return kernel
