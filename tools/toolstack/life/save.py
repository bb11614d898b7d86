"""How a guest is saved: brought to rest, its device model's state taken, all written to one file.

Facts: contract §4.1: an HVM guest without paravirtual drivers is shut down with the reason
`suspend`; after a failure it goes on. What differs from libxl: every guest is suspended that way,
for nothing here could wake one that suspends itself; memory is written once, without a log of dirty
pages, since the guest rests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol import layouts
from tools.hypervisor.errors import EngineUnavailable, HypercallError
from tools.toolstack.errors import HostFailure, ToolstackError

from .save_file import GFN, PAGE, Kind, SaveWriter

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain

    from .guest import Guest

__all__ = ["save"]

STATE = "qemu-save"
RUN = 256
"""Pages in one record at most."""
ZEROS = bytes(PAGE)
STEP = 1 << 24
"""Bytes of memory between two reports of progress."""


def save(guest: Guest, path: Path, progress: Callable[[str], object] = lambda text: None) -> None:
    """Write a guest that runs, or is paused, to ``path``; it is then suspended, for good or not.

    ToolstackError, HostFailure: there is no file, and the guest goes on as before.
    """
    if guest.domain.state != "running":
        raise ToolstackError(f"domain {guest.domid} does not run")
    guest.domain.shutdown(layouts.SHUTDOWN_REASON_SUSPEND)
    state = guest.place.file(STATE)
    try:
        guest.wait_state("shutdown")
        guest.wait_parked()
        processors = _processors(guest)
        progress("saving the device model")
        guest.emulator.suspend(state)
        with SaveWriter(path) as writer:
            writer.json(Kind.CONFIG, _config(guest))
            writer.json(Kind.DOMAIN, _domain(guest.domain))
            writer.json(Kind.PROCESSORS, processors)
            _memory(guest.domain, writer, progress)
            writer.record(Kind.MODEL, state.read_bytes())
            writer.finish()
    except (HostFailure, OSError) as error:
        _go_on(guest)
        raise HostFailure(f"save: {error}") from None
    finally:
        state.unlink(missing_ok=True)


def _go_on(guest: Guest) -> None:
    try:
        guest.resume()
    except (HostFailure, HypercallError) as error:
        guest.domain.crash(f"it could neither be saved nor go on: {error}")


def _processors(guest: Guest) -> Any:
    assert guest.engine is not None
    try:
        with guest.domain.lock:
            return guest.engine.save_state()
    except EngineUnavailable as error:
        raise HostFailure(str(error)) from None


def _config(guest: Guest) -> dict[str, str]:
    """The configuration as its text, which is read again by the one reader that there is."""
    return {"text": guest.text, "name": guest.config.name, "uuid": str(guest.uuid)}


def _domain(domain: Domain) -> dict[str, Any]:
    with domain.lock:
        params = [domain.params.peek(index) for index in range(layouts.HVM_PARAM_COUNT)]
        return {
            "now": domain.clock.now(),
            "regions": [[region.gpa, region.size] for region in domain.memory.regions],
            "types": sorted(domain.memory.types.items()),
            "params": params,
            "interrupts": domain.interrupts.save(),
            "pci_cf8": domain.pci_cf8,
        }


def _memory(domain: Domain, writer: SaveWriter, progress: Callable[[str], object]) -> None:
    done = 0
    total = sum(region.size for region in domain.memory.regions)
    for gpa, size, _ in domain.memory.regions:
        with domain.memory.view(gpa, size) as view:
            for first, last in _runs(view):
                writer.record(
                    Kind.MEMORY,
                    GFN.pack(gpa // PAGE + first),
                    view[first * PAGE : last * PAGE],
                )
                if done // STEP != (done + last * PAGE) // STEP:
                    progress(f"saving memory: {(done + last * PAGE) >> 20} of {total >> 20} MiB")
        done += size


def _runs(view: memoryview[int]) -> Iterator[tuple[int, int]]:
    """The runs of pages that are not zero, at most `RUN` pages each: first, and after the last."""
    count = len(view) // PAGE
    first = 0
    while first < count:
        if view[first * PAGE : (first + 1) * PAGE] == ZEROS:
            first += 1
            continue
        last = first + 1
        while (
            last < count and last - first < RUN and view[last * PAGE : (last + 1) * PAGE] != ZEROS
        ):
            last += 1
        yield first, last
        first = last
