"""What we understand is what xl understood: its dry runs, recorded in the laboratory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.toolstack.xlcfg import read_text

from .as_xl import differences
from .corpus import GOOD

RECORDED = json.loads((Path(__file__).parent / "data" / "xl.json").read_text())
"""By name: what xl of Xen 4.17 and of 4.20 print, which is the same; tests/xen records it anew."""


@pytest.mark.parametrize("name", GOOD)
def test_a_configuration_means_to_us_what_it_means_to_xl(name: str) -> None:
    assert differences(RECORDED[name], read_text(GOOD[name], name, lambda line: None)) == []


def test_a_difference_would_be_found() -> None:
    guest = read_text(GOOD["disk-positional"], "g", lambda line: None)
    printed = RECORDED["disk-read-only"] | {"news": 1}
    found = "\n".join(differences(printed, guest))
    for word in ("pdev_path", "vdev", "readwrite", "news"):
        assert word in found
