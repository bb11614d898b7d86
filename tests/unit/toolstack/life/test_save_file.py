"""The file of a saved guest: what is written is read, what is changed or cut is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import layouts
from tools.hypervisor.interrupts import Interrupts
from tools.toolstack.errors import HostFailure, ToolstackError
from tools.toolstack.life.save_file import GFN, PAGE, RECORD, Kind, SaveReader, SaveWriter
from tools.toolstack.life.saved import Saved

CFG = 'name="g"\ntype="hvm"\nmemory=4\nvga="none"\nfirmware_override="/x"\n'
CONFIG = {"text": CFG, "name": "g", "uuid": "6a3cd6ee-2b8e-4b55-8b48-5a8b4a3a2a10"}
DOMAIN: dict[str, Any] = {
    "now": 5,
    "regions": [[0, 0xA0000], [0xC0000, 0x340000]],
    "types": [],
    "params": [0] * layouts.HVM_PARAM_COUNT,
    "interrupts": Interrupts().save(),
    "pci_cf8": 0,
}
PAGES = bytes(range(256)) * 16


def write(
    path: Path,
    *,
    config: Any = CONFIG,
    domain: Any = DOMAIN,
    memory: tuple[tuple[int, bytes], ...] = ((1, PAGES), (0xC0, PAGES * 2)),
) -> None:
    with SaveWriter(path) as writer:
        writer.json(Kind.CONFIG, config)
        writer.json(Kind.DOMAIN, domain)
        writer.json(Kind.PROCESSORS, {"rip": 1})
        for gfn, data in memory:
            writer.record(Kind.MEMORY, GFN.pack(gfn), data)
        writer.record(Kind.MODEL, b"state")
        writer.finish()


def refused(path: Path) -> str:
    with pytest.raises(ToolstackError) as caught:
        Saved(path).close()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    reader = SaveReader(path)
    assert reader.json(Kind.CONFIG) == CONFIG
    assert list(reader.memory()) == [(PAGE, PAGES), (0xC0000, PAGES * 2)]
    assert reader.model() == b"state"
    reader.close()
    saved = Saved(path)
    assert (saved.config.name, saved.config.memory, saved.now) == ("g", 4, 5)
    saved.close()


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    with SaveWriter(tmp_path / "file") as writer:
        writer.json(Kind.CONFIG, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), SaveWriter(tmp_path / "file"):
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    write(tmp_path / "file")
    Saved(tmp_path / "file").close()


def test_a_file_that_cannot_be_made_is_a_host_failure(tmp_path: Path) -> None:
    with pytest.raises(HostFailure, match="open "):
        SaveWriter(tmp_path / "no" / "file")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "file"
    write(path)
    return path.read_bytes()


@given(data=st.data())
def test_any_single_changed_byte_is_found(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    refused(path)


@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    refused(path)


def test_more_after_the_end_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(good + b"\0")
    assert "after its end" in refused(path)


def test_a_record_that_claims_to_be_huge_is_refused_unread(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(good[:24] + RECORD.pack(Kind.CONFIG, 0, 1 << 60) + good[40:])
    assert "bytes" in refused(path)


def test_records_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with SaveWriter(path) as writer:
        writer.json(Kind.DOMAIN, DOMAIN)
        writer.json(Kind.CONFIG, CONFIG)
        writer.finish()
    assert "a record of type 1 after one of type 2" in refused(path)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with SaveWriter(path) as writer:
        writer.json(Kind.CONFIG, CONFIG)
        writer.json(Kind.PROCESSORS, {})
        writer.record(Kind.MODEL, b"")
        writer.finish()
    assert "record 2 is missing" in refused(path)


BAD_CONFIGS = [
    [],
    {},
    {**CONFIG, "more": 1},
    {**CONFIG, "text": 1},
    {**CONFIG, "text": "name=("},
    {**CONFIG, "name": "../x"},
    {**CONFIG, "uuid": "none"},
]


@pytest.mark.parametrize("config", BAD_CONFIGS)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, config: Any) -> None:
    write(tmp_path / "file", config=config)
    with pytest.raises(ToolstackError) as caught:
        Saved(tmp_path / "file")
    assert "\n" not in str(caught.value)


BAD_DOMAINS = [
    [],
    {},
    {**DOMAIN, "now": -1},
    {**DOMAIN, "now": True},
    {**DOMAIN, "now": 1.5},
    {**DOMAIN, "regions": []},
    {**DOMAIN, "regions": [[0, 0]]},
    {**DOMAIN, "regions": [[0, 1 << 40]]},
    {**DOMAIN, "regions": [[1, 4096]]},
    {**DOMAIN, "regions": [[0x2000, 4096], [0, 4096]]},
    {**DOMAIN, "regions": [[0, 0x2000], [0x1000, 4096]]},
    {**DOMAIN, "regions": [[0, 4096, 7]]},
    {**DOMAIN, "regions": "all"},
    {**DOMAIN, "regions": [[(1 << 52) - 4096, 8192]]},
    {**DOMAIN, "types": [[0, 99]]},
    {**DOMAIN, "params": [0]},
    {**DOMAIN, "params": [1 << 64] * layouts.HVM_PARAM_COUNT},
    {**DOMAIN, "interrupts": {}},
    {**DOMAIN, "pci_cf8": 1 << 32},
]


@pytest.mark.parametrize("domain", BAD_DOMAINS)
def test_a_domain_that_cannot_be_is_refused(tmp_path: Path, domain: Any) -> None:
    write(tmp_path / "file", domain=domain, memory=())
    refused(tmp_path / "file")


BAD_MEMORY = [
    ((1, PAGES[:-1]),),
    ((1, b""),),
    ((0x9F, PAGES * 2),),
    ((0xA0, PAGES),),
    ((2, PAGES), (1, PAGES)),
    ((1, PAGES), (1, PAGES)),
    ((0x400, PAGES),),
    (((1 << 64) - 1, PAGES),),
]


@pytest.mark.parametrize("memory", BAD_MEMORY)
def test_pages_that_are_not_the_domain_s_are_refused(
    tmp_path: Path, memory: tuple[tuple[int, bytes], ...]
) -> None:
    write(tmp_path / "file", memory=memory)
    assert "are not its memory" in refused(tmp_path / "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(DOMAIN)), value=JSON)
def test_nothing_in_a_domain_is_more_than_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "domain"
    write(path, domain={**DOMAIN, key: value}, memory=())
    with contextlib.suppress(ToolstackError):
        Saved(path).close()


def test_json_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with SaveWriter(path) as writer:
        writer.record(Kind.CONFIG, b"[" * 100_000)
        writer.json(Kind.DOMAIN, DOMAIN)
        writer.json(Kind.PROCESSORS, {})
        writer.record(Kind.MODEL, b"")
        writer.finish()
    assert "no JSON" in refused(path)


def test_the_end_is_the_checksum_of_all_before_it(good: bytes) -> None:
    size = hashlib.sha256().digest_size
    assert good[-size:] == hashlib.sha256(good[: -size - RECORD.size]).digest()
    assert json.dumps(CONFIG).encode() in good
