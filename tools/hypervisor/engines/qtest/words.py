"""How a qtest request is written: words, numbers in any C base, and data in hexadecimal or base 64.

Source: QEMU 7.2, softmmu/qtest.c (qtest_process_command), which ends at most malformed requests;
here they are answered with an error.
"""

from __future__ import annotations

import binascii

__all__ = ["LONGEST_BLOCK", "RequestError", "address", "base64", "block", "hexadecimal", "number"]

LONGEST_BLOCK = 1 << 24
"""Bytes of guest memory that one request may move."""
MASK = (1 << 64) - 1
_DIGITS = {8: b"01234567", 10: b"0123456789", 16: b"0123456789abcdefABCDEF"}


class RequestError(ValueError):
    """A request that cannot be done; the text goes to the client."""


def number(word: bytes) -> int:
    """What strtoull with base 0 makes of a whole word, modulo 2**64. RequestError otherwise."""
    digits = word[1:] if word[:1] in (b"+", b"-") else word
    if digits[:2] in (b"0x", b"0X"):
        base, digits = 16, digits[2:]
    elif digits[:1] == b"0" and len(digits) > 1:
        base, digits = 8, digits[1:]
    else:
        base = 10
    if not digits or len(digits) > 64 or digits.strip(_DIGITS[base]):
        raise RequestError(f"{shown(word)} is not a number")
    value = int(digits, base)
    if value > MASK:
        raise RequestError(f"{shown(word)} does not fit into 64 bits")
    return -value & MASK if word[:1] == b"-" else value


def address(word: bytes, limit: int) -> int:
    """A number below ``limit``."""
    value = number(word)
    if value >= limit:
        raise RequestError(f"there is no address {value:#x}")
    return value


def block(first: bytes, length: bytes) -> tuple[int, int]:
    """Where a block of memory begins, and its bytes."""
    start, size = number(first), number(length)
    if size > LONGEST_BLOCK:
        raise RequestError(f"{size} bytes are more than {LONGEST_BLOCK}")
    if start + size > MASK + 1:
        raise RequestError(f"{size} bytes from {start:#x} on leave the address space")
    return start, size


def hexadecimal(word: bytes, size: int) -> bytes:
    """``size`` bytes written as 0x and two digits each."""
    if word[:2] not in (b"0x", b"0X"):
        raise RequestError("data does not begin with 0x")
    try:
        data = binascii.unhexlify(word[2:])
    except binascii.Error:
        raise RequestError("data is not hexadecimal") from None
    return exactly(data, size)


def base64(word: bytes, size: int) -> bytes:
    """``size`` bytes in base 64."""
    try:
        data = binascii.a2b_base64(word, strict_mode=True)
    except binascii.Error:
        raise RequestError("data is not base 64") from None
    return exactly(data, size)


def exactly(data: bytes, size: int) -> bytes:
    """``data``, if it has ``size`` bytes."""
    if len(data) != size:
        raise RequestError(f"{len(data)} bytes of data where {size} were announced")
    return data


def shown(word: bytes) -> str:
    """A word of a client in a message to it: printable, on one line, not too long."""
    return ascii(word[:40].decode("latin-1"))
