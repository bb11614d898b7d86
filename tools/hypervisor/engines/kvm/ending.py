"""In words, why KVM does not go on with a vCPU. Facts: Documentation/virt/kvm/api.rst, KVM_RUN."""

from __future__ import annotations

from protocol.kvm import KvmExit, KvmInternalError, KvmRun

__all__ = ["describe"]

REASONS = {reason.value: reason.name.lower().replace("_", " ") for reason in KvmExit}
INTERNAL = {
    KvmInternalError.EMULATION: "an instruction that it does not emulate",
    KvmInternalError.SIMUL_EX: "exceptions at the same time",
    KvmInternalError.DELIVERY_EV: "an exit while an event was delivered",
    KvmInternalError.UNEXPECTED_EXIT_REASON: "an exit that it does not know",
}


def describe(run: KvmRun) -> str:
    """The exit reason in the run page, and what the page says about it."""
    reason, data = run.exit_reason, run.exit
    if reason == KvmExit.INTERNAL_ERROR:
        number = data.internal.suberror
        return f"internal error {number}, {INTERNAL.get(number, 'of no known kind')}"
    words = f"{data.words[0]:#x}, {data.words[1]:#x}"
    return f"{REASONS.get(reason, f'exit {reason}')} ({words})"
