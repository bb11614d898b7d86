"""hvm_info_table, by which hvmloader learns of vCPUs and RAM.

Facts: tools/libs/guest/xg_dom_x86.c (build_hvm_info), tools/libs/light/libxl_dom.c
(hvm_build_set_params).
"""

from __future__ import annotations

from protocol.hvm_info import HVM_INFO_TABLE, HVM_MAX_VCPUS, hvm_info_checksum

from .image import GuestImage
from .special_pages import RESERVED_GFN

__all__ = ["hvm_info"]


def hvm_info(image: GuestImage) -> bytes:
    """The table for ``image``, with its checksum."""
    fields = {
        "length": HVM_INFO_TABLE.sizeof(),
        "apic_mode": int(image.apic),
        "nr_vcpus": image.vcpus,
        "low_mem_pgend": image.layout.low_mem_pgend,
        "reserved_mem_pgstart": RESERVED_GFN["hvm"],
        "high_mem_pgend": image.layout.high_mem_pgend,
        "vcpu_online": ((1 << image.online) - 1).to_bytes(HVM_MAX_VCPUS // 8, "little"),
    }
    checksum = hvm_info_checksum(HVM_INFO_TABLE.build(fields))
    table: bytes = HVM_INFO_TABLE.build({**fields, "checksum": checksum})
    return table
