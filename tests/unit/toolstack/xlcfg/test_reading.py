"""What a configuration's keys mean, where xl's dry run does not show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.toolstack.xlcfg import GuestConfig, Vnc, read_config, read_text

_HEAD = 'name="g"\ntype="hvm"\n'


def _read(*lines: str) -> GuestConfig:
    return read_text(_HEAD + "\n".join(lines) + "\n", "g.cfg", lambda line: None)


def _warnings(*lines: str) -> list[str]:
    warnings: list[str] = []
    read_text(_HEAD + "\n".join(lines) + "\n", "g.cfg", warnings.append)
    return warnings


def test_an_unknown_key_is_named_with_its_place() -> None:
    assert _warnings("memroy=64", " vcpu=2") == [
        "g.cfg:3:1: warning: there is no key memroy",
        "g.cfg:4:2: warning: there is no key vcpu",
    ]


def test_a_key_of_xl_that_has_no_effect_here_is_named() -> None:
    assert _warnings("cpu_weight=256") == ["g.cfg:3:1: warning: cpu_weight= has no effect here"]


def test_a_device_model_without_its_version_is_warned_of_as_by_xl() -> None:
    assert len(_warnings('device_model_override="/d"')) == 1
    assert _warnings('device_model_override="/d"', 'device_model_version="qemu-xen"') == []


def test_a_kernel_that_is_hvmloader_is_dropped_with_a_warning() -> None:
    assert _read('kernel="/x/hvmloader"').kernel is None
    assert len(_warnings('kernel="/x/hvmloader"')) == 1


def test_the_actions_defaults_are_xls() -> None:
    guest = _read()
    assert guest.on_poweroff == "destroy"
    assert guest.on_reboot == "restart"
    assert guest.on_crash == "destroy"
    assert guest.on_watchdog == "destroy"
    assert guest.on_soft_reset == "soft-reset"


def test_libxls_defaults_are_filled_in() -> None:
    guest = _read("memory=64")
    assert (guest.maxmem, guest.videoram, guest.vcpus, guest.maxvcpus) == (64, 8, 1, 1)
    assert (guest.vga, guest.boot, guest.bios, guest.vnc) == ("cirrus", "cda", "seabios", Vnc())
    assert _read('vga="stdvga"', "memory=64").videoram == 16
    assert _read('vga="none"', "memory=64").videoram == 0


def test_s9_1_rdm_takes_either_order_and_either_part_alone() -> None:
    def rdm(text: str) -> tuple[str, str]:
        guest = _read(f'rdm="{text}"')
        return guest.rdm_strategy, guest.rdm_policy

    assert rdm("strategy=host,policy=strict") == ("host", "strict")
    assert rdm("policy=strict,strategy=host") == ("host", "strict")
    assert rdm("strategy=host") == ("host", "relaxed")
    assert rdm("policy=strict") == ("ignore", "strict")


def test_s9_1_the_boundary_is_in_mib_and_2048_by_default() -> None:
    assert _read().rdm_mem_boundary == 2048
    assert _read("rdm_mem_boundary=1024").rdm_mem_boundary == 1024


@pytest.mark.parametrize(
    ("rdm", "own", "policy"),
    [
        (None, None, "strict"),
        ("strategy=host", None, "strict"),
        ("policy=relaxed", None, "relaxed"),
        ("policy=strict", None, "strict"),
        (None, "relaxed", "relaxed"),
        ("policy=strict", "relaxed", "relaxed"),
        ("policy=relaxed", "strict", "strict"),
    ],
)
def test_s9_1_a_device_follows_its_own_policy_then_the_global_one_then_strict(
    rdm: str | None, own: str | None, policy: str
) -> None:
    option = f",rdm_policy={own}" if own else ""
    lines = [f'rdm="{rdm}"'] if rdm else []
    assert _read(*lines, f'pci=["01:00.0{option}"]').pci[0].rdm_policy == policy


def test_assignments_on_the_command_line_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "g.cfg"
    path.write_text(_HEAD + 'memory=64\nvif=["bridge=a"]')
    extra = ["memory=128", 'vif+=["bridge=b"]']
    guest = read_config(path, lambda line: None, extra=extra)
    assert guest.memory == 128
    assert [vif.bridge for vif in guest.vifs] == ["a", "b"]


def test_bytes_that_are_not_utf_8_survive(tmp_path: Path) -> None:
    path = tmp_path / "g.cfg"
    path.write_bytes(_HEAD.encode() + b'kernel="/\xff"\n')
    kernel = read_config(path, lambda line: None).kernel
    assert kernel is not None
    assert kernel.encode(errors="surrogateescape") == b"/\xff"


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(_read('vncpasswd="secret"'))
