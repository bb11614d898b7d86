"""HVM parameters of a domain: which can be read and set, how often, and what setting them does.

Facts: xen/arch/x86/hvm/hvm.c (hvm_allow_set_param, hvm_set_param, hvm_allow_get_param) as of Xen
4.17. With the original design's default server (Xen 4.5 to 4.11, same file) DM_DOMAIN can be set
and reading the parameters of the ioreq pages creates the server.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, EPERM
from typing import TYPE_CHECKING

from protocol import layouts

from .errors import HypercallError

if TYPE_CHECKING:
    from .domain import Domain

__all__ = ["DOMID_SELF", "Params"]

DOMID_SELF = 0x7FF0
POOL_LIMIT = 64
"""Most pages that NR_IOREQ_SERVER_PAGES can speak of: bits of an unsigned long."""
S0, S3 = 0, 3

_OF_DEFAULT_SERVER = frozenset({layouts.HVM_PARAM_DM_DOMAIN, layouts.HVM_PARAM_BUFIOREQ_EVTCHN})
DEPRECATED = _OF_DEFAULT_SERVER | {
    layouts.HVM_PARAM_PAE_ENABLED,
    layouts.HVM_PARAM_MEMORY_EVENT_CR0,
    layouts.HVM_PARAM_MEMORY_EVENT_CR3,
    layouts.HVM_PARAM_MEMORY_EVENT_CR4,
    layouts.HVM_PARAM_MEMORY_EVENT_INT3,
    layouts.HVM_PARAM_NESTEDHVM,
    layouts.HVM_PARAM_MEMORY_EVENT_SINGLE_STEP,
    layouts.HVM_PARAM_MEMORY_EVENT_MSR,
}
"""Neither read nor set: EINVAL."""
ONCE = frozenset(
    {
        layouts.HVM_PARAM_IOREQ_PFN,
        layouts.HVM_PARAM_BUFIOREQ_PFN,
        layouts.HVM_PARAM_VIRIDIAN,
        layouts.HVM_PARAM_IOREQ_SERVER_PFN,
        layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES,
        layouts.HVM_PARAM_ALTP2M,
        layouts.HVM_PARAM_MCA_CAP,
    }
)
"""Set to another value after one that is not 0: EEXIST."""
BY_GUEST = frozenset(
    {
        layouts.HVM_PARAM_CALLBACK_IRQ,
        layouts.HVM_PARAM_VM86_TSS,
        layouts.HVM_PARAM_VM86_TSS_SIZED,
        layouts.HVM_PARAM_ACPI_IOPORTS_LOCATION,
        layouts.HVM_PARAM_VM_GENERATION_ID_ADDR,
        layouts.HVM_PARAM_STORE_EVTCHN,
        layouts.HVM_PARAM_CONSOLE_EVTCHN,
        layouts.HVM_PARAM_X87_FIP_WIDTH,
    }
)
"""What a guest may set of its own: else EPERM."""
CREATES_DEFAULT = frozenset(
    {
        layouts.HVM_PARAM_IOREQ_PFN,
        layouts.HVM_PARAM_BUFIOREQ_PFN,
        layouts.HVM_PARAM_BUFIOREQ_EVTCHN,
    }
)
VALUES = {
    layouts.HVM_PARAM_TIMER_MODE: range(layouts.TIMER_MODE_ONE_MISSED_TICK_PENDING + 1),
    layouts.HVM_PARAM_ACPI_IOPORTS_LOCATION: range(2),
    layouts.HVM_PARAM_ACPI_S_STATE: (S0, S3),
    layouts.HVM_PARAM_NR_IOREQ_SERVER_PAGES: range(1, POOL_LIMIT + 1),
    layouts.HVM_PARAM_X87_FIP_WIDTH: (0, 4, 8),
    layouts.HVM_PARAM_TRIPLE_FAULT_REASON: range(layouts.SHUTDOWN_REASON_SOFT_RESET + 1),
    layouts.HVM_PARAM_ALTP2M: range(layouts.ALTP2M_MODE_LIMITED + 1),
}
"""Values that a parameter can have, where not all do: else EINVAL."""


class Params:
    """The parameters of one domain. The domain's lock guards it.

    ``default_server``: behave as the original design did, not as today's Xen.
    """

    def __init__(self, domain: Domain, *, default_server: bool = False) -> None:
        self._domain = domain
        self._default_server = default_server
        self._refused = DEPRECATED - _OF_DEFAULT_SERVER if default_server else DEPRECATED
        self._values = [0] * layouts.HVM_PARAM_COUNT
        self._values[layouts.HVM_PARAM_TRIPLE_FAULT_REASON] = layouts.SHUTDOWN_REASON_REBOOT

    def peek(self, index: int) -> int:
        """The value as it is stored, with no rule and no effect."""
        return self._values[index]

    def get(self, index: int) -> int:
        """HVMOP_get_param. HypercallError, EINVAL: deprecated or unknown.

        With a default server, reading the parameters of its pages or of its ring's port creates
        it (errors as `IoreqServers.create_default`).
        """
        self._check_index(index)
        with self._domain.lock:
            if self._default_server and index in CREATES_DEFAULT:
                emulator = self._values[layouts.HVM_PARAM_DM_DOMAIN]
                server = self._domain.servers.create_default(emulator)
                if index == layouts.HVM_PARAM_BUFIOREQ_EVTCHN:
                    return server.ring_channel.port if server.ring_channel else 0
            if index == layouts.HVM_PARAM_ACPI_S_STATE:
                return S3 if self._domain.suspended else S0
            return self._values[index]

    def set(self, index: int, value: int, *, by_guest: bool = False) -> None:
        """HVMOP_set_param. HypercallError: EINVAL deprecated, unknown or a value that cannot be,
        EEXIST a value that may change only once, EPERM not for the guest."""
        self._check_index(index)
        if by_guest and index not in BY_GUEST:
            raise HypercallError(EPERM, f"parameter {index} is not for the guest to set")
        if index in VALUES and value not in VALUES[index]:
            raise HypercallError(EINVAL, f"parameter {index} cannot be {value:#x}")
        with self._domain.lock:
            old = self._values[index]
            if index in ONCE and old not in (0, value):
                raise HypercallError(EEXIST, f"parameter {index} is {old:#x} for good")
            self._apply(index, value)

    def _apply(self, index: int, value: int) -> None:
        if index == layouts.HVM_PARAM_BUFIOREQ_EVTCHN:
            raise HypercallError(EINVAL, "the ring's port is not for anyone to set")
        if index == layouts.HVM_PARAM_DM_DOMAIN:
            value = 0 if value == DOMID_SELF else value
            if self._domain.servers.default is not None:
                self._domain.servers.default.replace_emulator(value)
        if index == layouts.HVM_PARAM_ACPI_S_STATE:
            self._domain.set_suspended(suspended=value == S3)
        self._values[index] = value

    def _check_index(self, index: int) -> None:
        if not 0 <= index < layouts.HVM_PARAM_COUNT or index in self._refused:
            raise HypercallError(EINVAL, f"there is no parameter {index}")
