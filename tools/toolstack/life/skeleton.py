"""The nodes of a domain in xenstore, as a toolstack makes and removes them.

Facts: tools/libs/light/libxl_create.c (libxl__domain_make), libxl_dom.c (libxl__build_post,
libxl__domain_build), contract §5.2 and §6. The nodes of a guest's start that hvmloader reads are
the domain builder's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from protocol import layouts
from tools.toolstack.xlcfg import GuestConfig

if TYPE_CHECKING:
    from tools.hypervisor.domain import Domain
    from tools.hypervisor.store import Store

__all__ = ["close_backends", "introduce", "make_nodes", "remove_nodes"]

CLOSING = "5"
"""XenbusStateClosing."""
INTRODUCED, RELEASED = "@introduceDomain", "@releaseDomain"
BACKENDS = "/local/domain/0/backend"
DIRECTORIES = ("drivers", "feature", "attr", "error", "data", "device", "control")


def home_of(domid: int) -> str:
    """The domain's directory."""
    return f"/local/domain/{domid}"


def make_nodes(store: Store, domid: int, config: GuestConfig, uuid: UUID) -> None:
    """libxl__domain_make: what there is of a domain before it is built."""
    home = home_of(domid)
    nodes = {
        f"{home}/vm": f"/vm/{uuid}",
        f"{home}/name": config.name,
        f"{home}/domid": str(domid),
        f"{home}/control/platform-feature-multiprocessor-suspend": "1",
        f"{home}/control/platform-feature-xs_reset_watches": "1",
        f"/vm/{uuid}/uuid": str(uuid),
        f"/vm/{uuid}/name": config.name,
        f"/libxl/{domid}/type": config.type,
        f"/libxl/{domid}/dm-version": "qemu_xen",
        f"{home}/memory/static-max": str(config.maxmem << 10),
        f"{home}/memory/target": str((config.memory - config.videoram) << 10),
        f"{home}/memory/videoram": str(config.videoram << 10),
    }
    for number in range(config.maxvcpus):
        up = "online" if number < config.vcpus else "offline"
        nodes[f"{home}/cpu/{number}/availability"] = up
    for path, value in nodes.items():
        store.write(path, value)
    for name in DIRECTORIES:
        store.make(f"{home}/{name}")


def introduce(store: Store, domain: Domain) -> None:
    """libxl__build_post: where the rings are, then the domain is announced."""
    home, params = home_of(domain.domid), domain.params
    for name, page, port in (
        ("store", layouts.HVM_PARAM_STORE_PFN, layouts.HVM_PARAM_STORE_EVTCHN),
        ("console", layouts.HVM_PARAM_CONSOLE_PFN, layouts.HVM_PARAM_CONSOLE_EVTCHN),
    ):
        store.write(f"{home}/{name}/ring-ref", str(params.peek(page)))
        store.write(f"{home}/{name}/port", str(params.peek(port)))
    store.fire(INTRODUCED)


def close_backends(store: Store, domid: int) -> list[str]:
    """Have every backend of the domain close; gives their directories.

    No backend lives here that could close: who watches its state sees it go, and the nodes too.
    """
    found = []
    for kind in _names(store, BACKENDS):
        for number in _names(store, f"{BACKENDS}/{kind}/{domid}"):
            path = f"{BACKENDS}/{kind}/{domid}/{number}"
            store.write(f"{path}/online", "0")
            store.write(f"{path}/state", CLOSING)
            found.append(path)
    return found


def remove_nodes(store: Store, domid: int, uuid: UUID) -> None:
    """What is left of a domain in xenstore goes; then its end is announced."""
    paths = [f"{BACKENDS}/{kind}/{domid}" for kind in _names(store, BACKENDS)]
    paths += [f"/vm/{uuid}", home_of(domid), f"/libxl/{domid}"]
    for path in paths:
        if store.read(path) is not None:
            store.remove(path)
    store.fire(RELEASED)


def _names(store: Store, path: str) -> list[str]:
    return store.directory(path) if store.read(path) is not None else []
