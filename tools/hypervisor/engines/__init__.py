"""What every vCPU engine is: threads that run guest code and hand its accesses to `Vcpu`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..errors import DomainEnded, EngineUnavailable

if TYPE_CHECKING:
    from ..domain import Domain
    from ..vcpu import Vcpu

__all__ = ["Engine"]


class Engine:
    """Runs the vCPUs of one domain, a thread each. A subclass defines `run` and ``name``.

    ``error``: what ended a thread unexpectedly; the domain is crashed then.
    """

    name = ""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def run(self, vcpu: Vcpu) -> None:
        """Run one vCPU until its domain ends: return, or let DomainEnded out.

        Whenever ``vcpu.attention`` is set, call ``vcpu.rest()`` before the guest goes on, then
        ``vcpu.take_event()``; ``vcpu.on_kick`` is how to be told while guest code runs.
        """
        raise NotImplementedError

    def save_state(self) -> dict[str, Any]:
        """All that the engine has of a domain whose vCPUs are parked, as numbers by name.

        EngineUnavailable: this engine cannot tell.
        """
        raise EngineUnavailable(f"the {self.name} engine cannot save its processors")

    def load_state(self, state: object) -> None:
        """Take over what `save_state` gave, before `start`.

        StateError, and then nothing has changed. EngineUnavailable: this engine cannot.
        """
        raise EngineUnavailable(f"the {self.name} engine cannot restore processors")

    def start(self) -> None:
        """Let the vCPUs run."""
        for vcpu in self.domain.vcpus:
            thread = threading.Thread(
                target=self._run, args=(vcpu,), name=f"vCPU {vcpu.id}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, vcpu: Vcpu) -> None:
        try:
            self.run(vcpu)
        except DomainEnded:
            pass
        except BaseException as error:
            self.error = error
            self.domain.crash(f"the {self.name} engine failed: {error!r}")

    def stop(self) -> None:
        """Bring every vCPU to rest for good, and join the threads."""
        for vcpu in list(self.domain.vcpus):
            vcpu.stop()
        self.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the threads, at most ``timeout`` seconds each; says whether all have ended."""
        current = threading.current_thread()
        for thread in self._threads:
            if thread is not current:
                thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)
