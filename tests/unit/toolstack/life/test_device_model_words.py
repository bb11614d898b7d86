"""The device model's argument vector, as libxl has it (contract §1.6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.toolstack.life.device_model_words import device_model_words
from tools.toolstack.xlcfg import GuestConfig

CONFIG = GuestConfig(
    name="g", type="hvm", memory=64, maxmem=64, videoram=8, vga="none", serial=("pty", "none")
)


def words(config: GuestConfig = CONFIG, incoming: int | None = None) -> list[str]:
    return device_model_words(
        config,
        7,
        hypervisor=Path("/run/a,b/xen"),
        monitor=Path("/run/qmp"),
        statistics=Path("/run/stat"),
        incoming=incoming,
    )


def after(option: str, vector: list[str]) -> list[str]:
    return [vector[at + 1] for at, word in enumerate(vector) if word == option]


def test_s1_6_the_vector_of_a_small_guest_in_libxl_s_order() -> None:
    assert words() == [
        *("-accel", "local,path=/run/a,,b/xen,domid=7", "-xen-domid", "7", "-no-shutdown"),
        *("-chardev", "socket,id=libxl-cmd,path=/run/qmp,server=on,wait=off"),
        *("-mon", "chardev=libxl-cmd,mode=control"),
        *("-chardev", "socket,id=libxenstat-cmd,path=/run/stat,server=on,wait=off"),
        *("-mon", "chardev=libxenstat-cmd,mode=control"),
        *("-nodefaults", "-no-user-config", "-name", "g", "-vnc", "none", "-display", "none"),
        *("-serial", "pty", "-serial", "none", "-boot", "order=cda", "-net", "none"),
        *("-machine", "xenfv,suppress-vmdesc=on", "-m", "56"),
    ]


def test_s1_6_row_13_direct_boot_goes_to_the_device_model() -> None:
    vector = words(replace(CONFIG, kernel="k", ramdisk="r", cmdline="c d"))
    assert [after(one, vector) for one in ("-kernel", "-initrd", "-append")] == [
        ["k"],
        ["r"],
        ["c d"],
    ]


def test_a_pvh_guest_s_kernel_is_not_the_device_model_s() -> None:
    assert "-kernel" not in words(replace(CONFIG, type="pvh", kernel="k"))


def test_s1_6_row_23_vcpus_are_told_when_there_may_be_more_than_one() -> None:
    assert after("-smp", words(replace(CONFIG, vcpus=2, maxvcpus=4))) == ["2,maxcpus=4"]


def test_s1_6_row_27_and_28_the_state_comes_before_the_user_s_own_words() -> None:
    vector = words(replace(CONFIG, device_model_args=("-a",), device_model_args_hvm=("-b",)), 9)
    at = vector.index("-incoming")
    assert vector[at:] == [
        *("-incoming", "fd:9", "-a", "-machine", "xenfv,suppress-vmdesc=on", "-b", "-m", "56")
    ]


def test_s1_6_row_29_the_machine_follows_platform_device_and_hole() -> None:
    assert after("-machine", words(replace(CONFIG, xen_platform_pci=False))) == [
        "pc,suppress-vmdesc=on"
    ]
    assert after("-machine", words(replace(CONFIG, mmio_hole=1024))) == [
        "xenfv,suppress-vmdesc=on,max-ram-below-4g=3221225472"
    ]
    assert "max-ram" not in after("-machine", words(replace(CONFIG, mmio_hole=64)))[0]


def test_s1_6_row_18_the_display_adapter_has_the_video_memory() -> None:
    assert "VGA,vgamem_mb=16" in after("-device", words(replace(CONFIG, vga="stdvga", videoram=16)))
