"""Every block of the two reference pages runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .plugin_runs import run_pytest

DOCS = Path(__file__).parents[3] / "docs"


def blocks(name: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of lines before it."""
    text = (DOCS / name).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: one.start(1)].count("\n"), one[1]) for one in found]


def test_the_declarations_do_what_the_page_says() -> None:
    names: dict[str, Any] = {"__name__": "declarations"}
    found = blocks("declarations.md")
    for before, block in found:
        exec(compile("\n" * before + block, str(DOCS / "declarations.md"), "exec"), names)
    assert len(found) > 10


def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    for _, block in blocks("testing.md"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block)
    run = run_pytest(tmp_path)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert "25 passed" in run.stdout


def test_every_name_of_the_kit_is_on_the_page() -> None:
    import dm

    page = (DOCS / "declarations.md").read_text()
    # What only the inside of a machine or an annotation needs.
    inner = {"Platform", "GuestMemory", "RegisterSlot", "RegisterArray", "Command", "Status"}
    inner |= {"Deferral", "ConfigError", "HostError"}
    assert [name for name in dm.__all__ if name not in inner and name not in page] == []
