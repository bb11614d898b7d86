"""A layout as people see it: no gap in the table, well-formed pictures, one line per error."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import ConfigError, HostError
from tools.cli import layout as command
from tools.toolstack.layout_picture import as_svg, as_table, segments
from tools.toolstack.memory_layout import FOUR_GIB, lay_out
from tools.toolstack.rdm import PAGE, RdmEntry

MIB, GIB = 1 << 20, 1 << 30
_SVG = "{http://www.w3.org/2000/svg}"

_LAYOUTS = st.builds(
    lambda mib, regions, kind: lay_out(
        mib * MIB,
        [RdmEntry(page * PAGE, pages * PAGE, "relaxed") for page, pages in regions],
        kind=kind,
    ),
    st.integers(2, 8192),
    st.lists(st.tuples(st.integers(0, 2 << 20), st.integers(1, 1 << 18)), max_size=5),
    st.sampled_from(["hvm", "pvh"]),
)


@given(_LAYOUTS)
def test_the_segments_cover_the_address_space_without_a_gap(layout: object) -> None:
    shown = segments(layout)  # type: ignore[arg-type] # st.builds has no type for a lambda's result
    assert shown[0].start == 0
    assert shown[-1].end >= FOUR_GIB
    assert all(before.end == after.start for before, after in pairwise(shown))
    assert all(one.start < one.end for one in shown)


@given(_LAYOUTS, st.text(max_size=20))
def test_a_picture_is_well_formed_and_has_every_segment(layout: object, title: str) -> None:
    drawn = ElementTree.fromstring(as_svg(layout, title))  # type: ignore[arg-type] # as above
    kinds = [one.get("class") for one in drawn.iter(f"{_SVG}rect")][1:]
    assert kinds == [one.kind for one in segments(layout)][::-1]  # type: ignore[arg-type]
    edges = [
        float(one.get("y", "")) + float(one.get("height", ""))
        for one in drawn.findall(f"{_SVG}rect")
    ]
    assert max(edges) < float(drawn.get("height", ""))


def test_a_title_cannot_become_markup() -> None:
    drawn = ElementTree.fromstring(as_svg(lay_out(64 * MIB), "</title><script/>\0\ud800"))
    assert drawn.findtext(f"{_SVG}title") == "</title><script/>\ufffd\ufffd"


def test_the_table_says_what_is_where() -> None:
    layout = lay_out(
        4 * GIB, [RdmEntry(0xC0000000, MIB, "strict"), RdmEntry(0xED000, PAGE, "relaxed")]
    )
    lines = as_table(layout).splitlines()
    assert lines[1].split() == ["0x000000000", "0x00009ffff", "640", "KiB", "RAM"]
    assert lines[2].split() == ["0x0000a0000", "0x0000bffff", "128", "KiB", "VGA", "window"]
    assert any(line.startswith("0x0000ed000 0x0000edfff ") and "not told" in line for line in lines)
    assert any(line.startswith("0x0c0000000 0x0c00fffff ") and "reserved" in line for line in lines)
    assert lines[-1].startswith("lowmem_end 0xc0000000, highmem_end 0x140000000, mmio_start 0xf00")


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(words))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "guest.cfg"
    path.write_text('name="g"\ntype="hvm"\nmemory=4096\nmemroy=1\n')
    return path


def test_the_command_prints_the_table_and_draws(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions, picture = tmp_path / "regions", tmp_path / "layout.svg"
    regions.write_text("0xc0000000-0xc00fffff 00:02.0\n")
    words = ['rdm="strategy=host,policy=relaxed"', "--rdm", str(regions), "--svg", str(picture)]
    assert _run(str(config), *words, "--reserved", "0xe0000-0xeffff,00:1d.0") == 0
    output = capsys.readouterr()
    assert "lowmem_end 0xc0000000" in output.out
    assert output.err.splitlines() == [
        f"ioreqd: {config}:4:1: warning: there is no key memroy",
        "ioreqd: warning: ignoring the RDM conflict at 0xe0000: the guest is not told of the "
        "reserved region 0xe0000-0xeffff, which is in its RAM",
    ]
    ElementTree.parse(picture)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (['pci=["00:02.0"]', "--reserved", "0xe0000-0xeffff,00:02.0"], "RDM conflict at 0xe0000"),
        (["--reserved", "nonsense"], "0xSTART-0xEND"),
        (["--rdm", "/nonexistent"], "/nonexistent: No such file"),
        (["memory=none"], ":6:8: expected a value"),
    ],
)
def test_the_commands_errors_are_the_users_and_one_line(
    config: Path, words: list[str], part: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        _run(str(config), *words)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_that_cannot_be_written_is_the_hosts_error(config: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        _run(str(config), "--svg", str(tmp_path / "none" / "layout.svg"))
