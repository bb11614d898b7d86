"""The generated module: up to date, free of imports, right where it is easy to check by hand."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import generate, ioreq, layouts, libxl_stream


def test_committed_text_equals_the_generated_one() -> None:
    committed = generate.LAYOUTS_PATH.read_text(encoding="utf-8")
    assert committed == generate.render(), "run python -m protocol.generate"


def test_check_refuses_a_stale_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "layouts.py"
    monkeypatch.setattr(generate, "LAYOUTS_PATH", stale)
    assert generate.main(["--check"]) == 1
    assert "python -m protocol.generate" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    stale.write_text(stale.read_text(encoding="utf-8").replace("= 511", "= 512"), encoding="utf-8")
    assert generate.main(["--check"]) == 1


def test_unknown_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--write"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_name_that_two_declarations_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_MODULES", (ioreq, ioreq))
    with pytest.raises(ValueError, match="declared twice"):
        generate.render()


def test_importing_layouts_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import protocol.layouts; "
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=generate.LAYOUTS_PATH.parent.parent,
    )
    assert output.stdout.split() == ["protocol", "protocol.layouts"]


def test_layouts_holds_numbers_and_literals_only() -> None:
    public = {name: value for name, value in vars(layouts).items() if not name.startswith("__")}
    assert {type(value) for value in public.values()} == {int, str, bytes}
    assert all(name.isupper() for name in public)


def test_every_format_has_the_size_beside_it() -> None:
    formats = [name for name in vars(layouts) if name.endswith("_FORMAT")]
    assert len(formats) > 40
    for name in formats:
        size = getattr(layouts, name.removesuffix("_FORMAT") + "_SIZE")
        assert struct.calcsize(getattr(layouts, name)) == size, name


def test_values_that_xen_fixed_long_ago() -> None:
    assert layouts.IOREQ_FORMAT == "<QQIIIHBB"
    assert (layouts.IOREQ_FLAGS_OFFSET, layouts.IOREQ_TYPE_OFFSET) == (30, 31)
    assert layouts.IOREQ_STATE_MASK == 0x0F
    assert layouts.IOREQ_DATA_IS_PTR_MASK == 0x10
    assert layouts.IOREQ_DIR_MASK == 0x20
    assert layouts.IOREQ_DF_MASK == 0x40
    assert layouts.BUFFERED_PAGE_BUF_IOREQ_OFFSET == 8
    assert (layouts.BUF_IOREQ_SIZE_SHIFT, layouts.BUF_IOREQ_ADDR_SHIFT) == (10, 12)
    assert layouts.DM_OP_NR_VCPUS == 20
    assert layouts.LIBXL_HEADER_FORMAT == ">QII"


def test_stream_signatures_are_the_texts_they_stand_for() -> None:
    assert libxl_stream.LIBXL_IDENT.to_bytes(8, "big") == b"LibxlFmt"
    assert libxl_stream.LIBXC_IMAGE_ID.to_bytes(4, "big") == b"XENF"
    assert len(libxl_stream.XL_SAVE_MAGIC) == 32
