from __future__ import annotations

import gzip
import lzma
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import HostError
from tools.xenlab.kernel import extract_kernel

ELF = b"\x7fELF" + bytes(5000)


def _bzimage(payload: bytes, sectors: int = 3) -> bytes:
    """Return a bzImage of ``sectors`` set-up sectors with ``payload`` 64 bytes into the rest."""
    header = bytearray(512 * (sectors + 1))
    header[0x1F1] = sectors
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 64, len(payload))
    return bytes(header) + bytes(64) + payload + b"what follows"


@pytest.mark.parametrize(
    "packed",
    [lzma.compress(ELF) + struct.pack("<I", len(ELF)), gzip.compress(ELF)],
    ids=["xz", "gzip"],
)
def test_the_elf_file_comes_out_of_each_compression(packed: bytes) -> None:
    assert extract_kernel(_bzimage(packed)) == ELF


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "not a bzImage"),
        (bytes(4096), "not a bzImage"),
        (_bzimage(b"LZ4 perhaps"), "unknown compression"),
        (_bzimage(gzip.compress(b"not ELF")), "no ELF file"),
        (_bzimage(b"\xfd7zXZ\0 and then nonsense"), "cannot decompress"),
    ],
)
def test_anything_else_is_one_clear_error(image: bytes, reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        extract_kernel(image)


@given(st.binary(max_size=64))
def test_no_payload_raises_anything_but_a_host_error(payload: bytes) -> None:
    for magic in (b"", b"\xfd7zXZ\0", b"\x1f\x8b"):
        with pytest.raises(HostError):
            extract_kernel(_bzimage(magic + payload))
