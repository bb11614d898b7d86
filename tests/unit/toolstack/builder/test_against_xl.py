"""What stock xl of Xen 4.17 built of a paused domain, against what is built here (contract §10).

data/paused-4.17.json was made in the laboratory from ``memory=32, vcpus=2, maxvcpus=3, vga="none"``
by tests/xen/dom0/image.py: parameters, a hash of every page that is not all zeros, and the bytes
of the two tables. tests/xen/test_builder.py compares anew, with each release.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from protocol.hvm_info import HVM_INFO_PADDR, HVM_INFO_TABLE
from tests.xen_firmware import require_firmware
from tools.hypervisor.domain import Domain
from tools.hypervisor.images.cpu_start import CpuStart
from tools.toolstack.builder import GuestImage, build_domain
from tools.toolstack.memory_layout import lay_out

from .guests import new_domain

ORACLE = Path(__file__).parent / "data" / "paused-4.17.json"
SIZE = 32 << 20
PAGE = 0x1000


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(ORACLE.read_text())
    return read


@pytest.fixture(scope="module")
def built(oracle: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    hvmloader, seabios = require_firmware()
    for name, path in (("hvmloader", hvmloader), ("firmware", seabios)):
        if hashlib.sha256(path.read_bytes()).hexdigest() != oracle[name]:
            pytest.skip(f"{path} is not the file that the oracle was made with")
    layout = lay_out(SIZE)
    with new_domain(tmp_path_factory.mktemp("b"), layout, vcpus=3, online=2) as (
        hypervisor,
        domain,
    ):
        image = GuestImage(
            kind="hvm", kernel=hvmloader, layout=layout, vcpus=3, online=2, firmware=seabios
        )
        yield domain, build_domain(domain, hypervisor.store, image).start


def test_s10_every_page_holds_what_libxc_puts_there(
    oracle: dict[str, Any], built: tuple[Domain, CpuStart]
) -> None:
    memory = built[0].memory
    found = {}
    for gpa, size, _ in memory.regions:
        for at in range(gpa, gpa + size, PAGE):
            data = memory.read(at, PAGE)
            if any(data):
                found[f"{at >> 12:#x}"] = hashlib.sha256(data).hexdigest()
    assert found == oracle["pages"]


def test_s10_hvm_info_table_is_libxls(
    oracle: dict[str, Any], built: tuple[Domain, CpuStart]
) -> None:
    table = built[0].memory.read(HVM_INFO_PADDR, HVM_INFO_TABLE.sizeof())
    assert table.hex() == oracle["hvm_info"]
    assert sum(table) & 0xFF == 0


def test_s10_start_info_is_libxcs(oracle: dict[str, Any], built: tuple[Domain, CpuStart]) -> None:
    domain, start = built
    expected = bytes.fromhex(oracle["start_info"])
    assert domain.memory.read(start.ebx, len(expected)) == expected


def test_s10_every_parameter_has_libxls_value(
    oracle: dict[str, Any], built: tuple[Domain, CpuStart]
) -> None:
    params = built[0].params
    for index, value in oracle["params"].items():
        assert params.get(int(index)) == value, index


def test_s10_the_first_vcpu_begins_in_hvmloader_with_ebx_at_the_start_info(
    built: tuple[Domain, CpuStart],
) -> None:
    assert built[1] == CpuStart("protected", ip=0x100000, ebx=0x174000)
