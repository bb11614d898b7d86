"""The JSON stream: any cut of the input gives the same values, and nothing in it is unbounded."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.control.qmp_json import MESSAGE_BYTES, NESTING, JsonError, Reader, write


def results(*pieces: bytes) -> list[str]:
    """What the pieces give: values as JSON, errors as their text."""
    reader = Reader()
    found = [one for piece in pieces for one in reader.feed(piece)]
    return [str(one) if isinstance(one, JsonError) else write(one) for one in found]


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_what_is_written_can_be_read_by_anybody(value: Any) -> None:
    text = write(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert text.isprintable()
    assert Reader().feed(text.encode()) == [value]


def surrogates(value: Any) -> bool:
    return any(0xD800 <= ord(letter) < 0xE000 for letter in json.dumps(value, ensure_ascii=False))


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), st.booleans())
def test_what_others_write_is_read(value: Any, ascii_only: bool) -> None:
    if ascii_only or not surrogates(value):
        assert Reader().feed(json.dumps(value, ensure_ascii=ascii_only).encode()) == [value]


NOISE = st.binary(max_size=40) | st.text("{}[]:,\"'\\ \n019.-+eEtruefalsn%x", max_size=60).map(
    str.encode
)


@given(NOISE, st.data())
def test_the_way_in_which_input_is_cut_changes_nothing(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    edges = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    whole = results(data)
    assert results(*pieces) == whole
    assert results(*(data[one : one + 1] for one in range(len(data)))) == whole


@given(NOISE)
def test_after_anything_a_line_end_and_a_message_are_understood(data: bytes) -> None:
    # Braces left open or a message half begun are ended by an error that the client can cause.
    answers = results(data + b'"\n\xff' + b'\n{"id": 1}\n')
    assert answers[-1] == '{"id": 1}'


def test_messages_need_nothing_between_them() -> None:
    assert results(b'{"a":1}{"b":[2]}\r\n{"c":"}"}') == ['{"a": 1}', '{"b": [2]}', '{"c": "}"}']


def test_the_deepest_nesting_is_read_and_written() -> None:
    text = b"[" * NESTING + b"]" * NESTING
    assert results(text) == [text.decode()]
    assert results(b"[" * (NESTING + 1)) == ["JSON nesting depth limit exceeded"]


@pytest.mark.parametrize(
    ("begin", "filler"),
    [(b'{"a":"', b"x"), (b"[", b"1,"), (b"1", b"1"), (b"t", b"e"), (b"['", b"\\n"), (b"0.", b"1")],
)
def test_an_endless_message_is_refused_and_costs_little(begin: bytes, filler: bytes) -> None:
    reader = Reader()
    found = reader.feed(begin)
    started = time.process_time()
    chunk = filler * (4096 // len(filler))
    sent = 0
    while not found and sent < 2 * MESSAGE_BYTES:
        found = reader.feed(chunk)
        sent += len(chunk)
    assert str(found[0]).endswith("limit exceeded")
    assert sent <= MESSAGE_BYTES + len(chunk)
    assert time.process_time() - started < 5
    reader.feed(b"'\"\n\xff\n")
    assert reader.feed(b'{"id": 2}\n')[-1] == {"id": 2}


def test_a_string_that_arrives_byte_by_byte_is_looked_at_once() -> None:
    reader = Reader()
    reader.feed(b'"')
    started = time.process_time()
    for _ in range(100_000):
        reader.feed(b"x")
    assert time.process_time() - started < 5
    assert reader.feed(b'"') == ["x" * 100_000]
