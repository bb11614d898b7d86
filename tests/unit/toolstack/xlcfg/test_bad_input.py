"""Whatever is wrong in a configuration is one readable line with file, line and column."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tools.toolstack.errors import ToolstackError
from tools.toolstack.xlcfg import read_config, read_text

from .corpus import BAD, GOOD, generated


def _refuse(line: str) -> None:
    raise AssertionError(line)


def _ignore(line: str) -> None:
    pass


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_configuration_is_one_line_with_its_place(name: str) -> None:
    text, line, column, part = BAD[name]
    with pytest.raises(ToolstackError) as caught:
        read_text(text, "guest.cfg", _ignore)
    message = str(caught.value)
    assert message.startswith(f"guest.cfg:{line}:{column}: ")
    assert part in message
    assert len(message.splitlines()) == 1


_PIECES = st.sampled_from(
    [*"=[],;#\"'\\ \n\t\r\0", "+=", "name", "g", '"hvm"', "type", "disk", "vif", "pci", "64", "0x"]
)


@given(st.lists(_PIECES, max_size=40).map("".join) | st.text(max_size=60))
@example("name=" + "9" * 5000)
@example('name="g"\nmemory="' + "9" * 5000 + '"')
@example('name="' + "\udc80" * 100 + '"\nuuid="\udc80"')
def test_any_text_is_understood_or_refused_in_one_line(text: str) -> None:
    lines: list[str] = []
    try:
        read_text(text, "f", lines.append)
    except ToolstackError as error:
        lines.append(str(error))
    for line in lines:
        assert re.match(r"f:[0-9]+:[0-9]+: ", line)
        assert len(line.splitlines()) == 1
        assert len(line) < 300
        line.encode()


_SPECS = st.sampled_from([*"abfrtwxh0123456789:=,.@/* -", "vdev=", "mac=", "format=", "01:00.0"])


def _refusal(text: str) -> str | None:
    try:
        read_text(text, "f", _ignore)
    except ToolstackError as error:
        return str(error)
    return None


@given(
    st.sampled_from(["disk", "vif", "pci", "serial"]), st.lists(_SPECS, max_size=20).map("".join)
)
def test_any_sub_syntax_is_understood_or_refused_in_one_line(key: str, spec: str) -> None:
    refusal = _refusal(f'name="g"\ntype="hvm"\n{key}=["{spec}"]\n')
    assert refusal is None or re.fullmatch(rf"f:3:{len(key) + 3}: {key}: [^\n]+", refusal)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_configuration_cut_short_is_refused_or_understood(name: str) -> None:
    text = GOOD[name]
    for end in range(0, len(text), 3):
        refusal = _refusal(text[:end])
        assert refusal is None or re.match(r"f:[0-9]+:[0-9]+: .", refusal)


def test_a_missing_file_is_a_readable_line(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match=r"none\.cfg: No such file or directory$"):
        read_config(tmp_path / "none.cfg", _refuse)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.cfg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ToolstackError, match=r"more than 256 KiB$"):
        read_config(path, _refuse)


def test_long_appending_is_bounded() -> None:
    lines = 'v+=["x"]\n' * ((256 << 10) // 9 - 3)
    read_text(f'name="g"\ntype="hvm"\n{lines}', "f", _ignore)


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_good_settings_is_understood(seed: int) -> None:
    for name, text in generated(20, seed).items():
        read_text(text, name, _refuse)
