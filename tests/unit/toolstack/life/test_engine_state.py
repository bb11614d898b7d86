"""The unicorn engine's state: a guest that goes on from it cannot tell; nothing else is taken."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.hypervisor.chips.chip import StateError
from tools.hypervisor.engines import Engine
from tools.hypervisor.engines.unicorn import loop
from tools.hypervisor.engines.unicorn.registers import MSRS
from tools.hypervisor.errors import EngineUnavailable

from ...standalone.machine import DATA, Guest, guest

POINT = 0x99
"""The port at which a guest is saved."""
FINISH = "mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b"
SET_MSRS = "".join(
    f"mov ${msr:#x}, %ecx; mov ${0x1000 + number:#x}, %eax; xor %edx, %edx; wrmsr; "
    for number, msr in enumerate(MSRS)
    if msr not in (0x277,)
)
GET_MSRS = "".join(
    f"mov ${msr:#x}, %ecx; rdmsr; mov %eax, {DATA + 0x800 + 8 * number:#x}; "
    for number, msr in enumerate(MSRS)
)
LONG = f"""
    {SET_MSRS}
    fninit; fld1; fldpi; fldl2e
    mov $0x3ff0123456789abc, %rax; movq %rax, %xmm0; movq %xmm0, %xmm15; pslldq $8, %xmm15
    mov $0x1111111122222222, %rbx; mov $0x3333, %rcx; mov $0x4444, %rsi; mov $0x5555, %rdi
    mov $0x6666, %rbp; mov $0x7777777788888888, %r8; mov $0x9999, %r15
    mov $0xfedc, %rax; mov %rax, %dr0
    stc; std
    out %al, ${POINT}
    pushfq; pop %rax; mov %rax, {DATA}
    cld
    mov %rbx, {DATA + 8}; mov %rcx, {DATA + 16}; mov %rsi, {DATA + 24}; mov %rdi, {DATA + 32}
    mov %rbp, {DATA + 40}; mov %r8, {DATA + 48}; mov %r15, {DATA + 56}; mov %rsp, {DATA + 64}
    mov %cr0, %rax; mov %rax, {DATA + 72}; mov %cr3, %rax; mov %rax, {DATA + 80}
    mov %cr4, %rax; mov %rax, {DATA + 88}; mov %cs, {DATA + 96}; mov %ss, {DATA + 98}
    mov %dr0, %rax; mov %rax, {DATA + 104}
    fxsave {DATA + 0x200}
    {GET_MSRS}
    {FINISH}
"""
PROTECTED = f"""
    mov $0x12345678, %ebx; mov $0x9abcdef0, %esi; stc
    out %al, ${POINT}
    setc {DATA}; mov %ebx, {DATA + 4}; mov %esi, {DATA + 8}; mov %cr0, %eax; mov %eax, {DATA + 12}
    {FINISH}
"""
REAL = f"""
    mov $0x2000, %ax; mov %ax, %es; mov $0x1234, %bx
    out %al, ${POINT}
    mov %bx, %es:4; mov %es, %es:6; mov %cs, %es:8; mov $0xf5, %dx; out %eax, %dx; 1: jmp 1b
"""


def hold_at_point(running: Guest) -> None:
    """Have the guest rest as soon as it has written to the port."""
    recorder, domain = running.recorders[0], running.domain

    def pause(address: int, value: int) -> None:
        if address == POINT:
            domain.pause()

    recorder.on_write = pause


def save_at_point(running: Guest) -> tuple[dict[str, Any], bytes]:
    """The engine's state and the memory at that moment."""
    hold_at_point(running)
    running.engine.start()
    domain = running.domain
    with domain.changed:
        assert domain.changed.wait_for(lambda: domain.held, 20)
    assert domain.wait_parked(20)
    with domain.lock:
        state = running.engine.save_state()
    return copy.deepcopy(state), bytes(domain.memory.read(0, domain.memory.size))


def finish(running: Guest) -> bytes:
    """Let it run to its end; what it has noted."""
    assert running.engine.join(20)
    assert running.engine.error is None
    noted = bytearray(running.domain.memory.read(DATA, 0x1000))
    noted[0x206:0x218] = bytes(0x12)  # where the last FPU instruction was
    return bytes(noted)


@pytest.mark.parametrize(
    ("mode", "source"), [("long", LONG), ("protected", PROTECTED), ("real", REAL)]
)
def test_a_guest_goes_on_elsewhere_as_it_would_have(
    tmp_path: Path, mode: Literal["real", "protected", "long"], source: str
) -> None:
    with guest(tmp_path, source, mode) as first, guest(tmp_path, "hlt", mode) as second:
        state, memory = save_at_point(first)
        second.domain.memory.write(0, memory)
        with second.domain.lock:
            second.engine.load_state(state)
            assert second.engine.save_state()["processors"] == state["processors"]
        second.engine.start()
        first.domain.unpause()
        noted = finish(first)
        assert any(noted)
        assert finish(second) == noted
        assert second.last == first.last


def test_elements_of_a_request_that_was_made_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LONGEST_CHUNK", 64)
    source = f"""
        mov ${DATA}, %esi; mov $0xe0000000, %edi; mov $1000, %ecx
        rep movsl
        mov $1000, %ecx; 2: loop 2b
        {FINISH}
    """
    with guest(tmp_path, source) as first, guest(tmp_path, "hlt") as second:
        recorder, domain = first.recorders[0], first.domain
        original = recorder.move

        def move(**arguments: Any) -> None:
            original(**arguments)
            domain.pause()

        recorder.move = move  # type: ignore[method-assign]
        state, memory = save_at_point(first)
        assert first.log == [("to", 0xE0000000, 4, 1000, DATA, False)]
        second.domain.memory.write(0, memory)
        with second.domain.lock:
            second.engine.load_state(state)
        second.engine.start()
        finish(second)
        assert second.log == []
        first.domain.unpause()
        finish(first)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with guest(tmp_path_factory.mktemp("idle"), "hlt", vcpus=2) as one:
        yield one


def test_a_processor_that_waits_for_startup_is_one_in_the_state(idle: Guest) -> None:
    first, second = idle.engine.save_state()["processors"]
    assert (first["down"], second["down"], second["initialised"]) == (0, 1, 1)
    idle.engine.load_state(idle.engine.save_state())


WRONG = st.one_of(
    st.none(), st.booleans(), st.text(max_size=2), st.integers(1 << 130, 1 << 140), st.just(-1)
)


@given(data=st.data())
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(
    idle: Guest, data: st.DataObject
) -> None:
    before = idle.engine.save_state()
    state = copy.deepcopy(before)
    processor = state["processors"][data.draw(st.integers(0, 1))]
    name = data.draw(st.sampled_from(sorted(processor)))
    wrong = data.draw(WRONG)
    if isinstance(processor[name], list):
        processor[name][data.draw(st.integers(0, len(processor[name]) - 1))] = wrong
    else:
        processor[name] = wrong
    with pytest.raises(StateError):
        idle.engine.load_state(state)
    after = idle.engine.save_state()
    assert after["processors"] == before["processors"]


@pytest.mark.parametrize(
    "state", [None, [], {}, {"processors": [], "board": {}}, {"processors": 1, "board": 2}]
)
def test_what_is_no_state_at_all_is_refused(idle: Guest, state: object) -> None:
    with pytest.raises(StateError):
        idle.engine.load_state(state)


def test_an_engine_that_cannot_save_says_so_in_one_line(idle: Guest) -> None:
    engine = Engine(idle.domain)
    engine.name = "kvm"
    with pytest.raises(EngineUnavailable, match="the kvm engine cannot save"):
        engine.save_state()
    with pytest.raises(EngineUnavailable, match="the kvm engine cannot restore"):
        engine.load_state({})
