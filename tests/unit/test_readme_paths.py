"""Every test and every document that the README names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NAMED = sorted(
    set(re.findall(r"`((?:tests|docs|devices|tools|dm|protocol)/[^`:]*)(?:::[^`]*)?`", README))
    | set(re.findall(r"\]\((docs/[^)]*)\)", README))
)
FUNCTIONS = sorted(set(re.findall(r"`(tests/[^`:]*\.py)::(\w+)`", README)))


@pytest.mark.parametrize("name", NAMED)
def test_what_the_readme_names_is_there(name: str) -> None:
    assert list(ROOT.glob(name.rstrip("/"))), f"{name} does not exist"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_the_tests_that_the_readme_names_are_in_their_files(name: str, function: str) -> None:
    assert f"def {function}(" in (ROOT / name).read_text()
