"""xl itself, in a dry run, understands guest configurations as `tools.toolstack.xlcfg` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.toolstack.xlcfg.as_xl import differences
from tests.unit.toolstack.xlcfg.corpus import BAD, GOOD, generated
from tests.unit.toolstack.xlcfg.test_against_xl import RECORDED
from tools.toolstack.errors import ToolstackError
from tools.toolstack.xlcfg import read_text

from .support import Host

_DRY_RUNS = """cd {folder} && for config in *.cfg; do
    xl create -n "$config" >"$config.json" 2>"$config.err" || rm "$config.json"; done"""
_EXAMPLES = ("xlexample.hvm", "xlexample.pvhlinux", "xlexample.pvlinux")

_TAKEN_BY_XL = {
    "append-number": "the number is ignored",
    "boot-unknown": "the device model refuses it",
    "cmdline-without-kernel": "libxl refuses it",
    "memory-above-maxmem": "Xen refuses it",
    "memory-huge": "the number is ignored",
    "memory-is-a-list": "the list is ignored",
    "memory-is-text": "the number is ignored",
    "memory-negative": "Xen refuses it",
    "memory-octal": "the number is ignored",
    "memory-with-unit": "the number is ignored",
    "memory-zero": "Xen refuses it",
    "pci-is-text": "the text is ignored",
    "pci-item-is-a-list": "what follows is ignored",
    "ramdisk-without-kernel": "libxl refuses it",
    "rdm-boundary-negative": "Xen gets a huge number",
    "rdm-key-unknown": "the setting is ignored",
    "rdm-policy-unknown": "the setting is ignored",
    "rdm-strategy-unknown": "the setting is ignored",
    "serial-nested": "what follows is ignored",
    "switch-is-text": "the switch is ignored",
    "vcpus-many": "Xen refuses it",
    "vcpus-zero": "the number is ignored",
    "videoram-small": "libxl refuses it",
    "videoram-takes-all": "Xen refuses it",
    "vif-key-unknown": "the option is ignored",
    "vif-mac": "the option is ignored",
    "vif-mac-large": "the option is ignored",
    "vif-type-unknown": "the option is ignored",
}
"""What xl's dry run takes of what we refuse, and what becomes of it later."""


def _dry_runs(host: Host, name: str, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What xl prints for each text that it takes, by name."""
    folder = host.share / name
    folder.mkdir()
    for key, text in texts.items():
        (folder / f"{key}.cfg").write_bytes(text.encode())
    host.run(_DRY_RUNS.format(folder=f"/share/{name}"), timeout=400)
    results = {key: folder / f"{key}.cfg.json" for key in texts}
    return {key: json.loads(path.read_text()) for key, path in results.items() if path.exists()}


def _unexplained(texts: Mapping[str, str], printed: Mapping[str, dict[str, Any]]) -> list[str]:
    """A line for each text that xl refuses, and for each difference between xl and us."""
    lines = [f"{name}: xl refuses it" for name in texts if name not in printed]
    for name, one in printed.items():
        guest = read_text(texts[name], name, lambda line: None)
        lines += [f"{name}: {line}" for line in differences(one, guest)]
    return lines


def test_xl_understands_each_good_configuration_as_we_do(host: Host) -> None:
    printed = _dry_runs(host, "good", GOOD)
    assert _unexplained(GOOD, printed) == []
    for name, one in printed.items():
        if "uuid" not in RECORDED[name]["c_info"]:
            del one["c_info"]["uuid"]
    assert printed == RECORDED


@pytest.mark.parametrize("seed", [1])
def test_xl_understands_generated_configurations_as_we_do(host: Host, seed: int) -> None:
    texts = generated(60, seed)
    assert _unexplained(texts, _dry_runs(host, f"generated-{seed}", texts)) == []


def test_xls_example_files_are_understood_as_by_xl(host: Host) -> None:
    texts = {name: host.run(["cat", f"/etc/xen/{name}"]).stdout for name in _EXAMPLES}
    assert _unexplained(texts, _dry_runs(host, "examples", texts)) == []


def test_xl_refuses_what_we_refuse_but_for_what_it_ignores(host: Host) -> None:
    texts = {name: text for name, (text, *_) in BAD.items() if "\0" not in text}
    for name, text in texts.items():
        with pytest.raises(ToolstackError):
            read_text(text, name, lambda line: None)
    assert _dry_runs(host, "bad", texts).keys() == _TAKEN_BY_XL.keys()
