"""Every command of docs/tutorial.md, in order, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .running import LIMIT

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
pytest.importorskip("unicorn")

DOCS = Path(__file__).parent.parent.parent / "docs"
ANYTHING = "…"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of all console blocks, each with what it is to print."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, expected = found.pop()
                found.append((command, f"{expected}{line}\n"))
    return found


def pattern(expected: str) -> re.Pattern[str]:
    """What matches the expected text; a line that is left out stands for any number of lines."""
    lines = []
    for line in expected.splitlines():
        if line == ANYTHING:
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*".join(map(re.escape, line.split(ANYTHING))) + r"\n")
    return re.compile("".join(lines))


def test_every_command_prints_what_the_tutorial_says(tmp_path: Path) -> None:
    for file in (DOCS / "tutorial").iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path / "tmp"),
        "LC_ALL": "C.UTF-8",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:xdist --rootdir=. -c /dev/null",
    }
    environment.pop("PYTEST_CURRENT_TEST", None)
    steps = commands((DOCS / "tutorial.md").read_text())
    assert len(steps) > 10
    for command, expected in steps:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        text = done.stdout.replace("\r", "")
        assert pattern(expected).fullmatch(text), f"$ {command}\n{text}\n--- expected\n{expected}"
        wrong = command.startswith("ioreqd replay") and "expected:" in expected
        assert done.returncode == int(wrong), command
    assert list((tmp_path / "tmp").glob("ioreqd-*")) == []


@pytest.mark.parametrize(
    "link", re.findall(r"\]\((tutorial/.*?)\)", (DOCS / "tutorial.md").read_text())
)
def test_its_links_lead_to_files(link: str) -> None:
    assert (DOCS / link).is_file()
