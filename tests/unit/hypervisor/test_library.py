"""Xen's libraries as they are called: prototypes that exist, and errors that say everything."""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
from pathlib import Path

import pytest

from dm.errors import HostError
from dm.hypervisor.xen import library as module
from dm.hypervisor.xen.library import Library
from dm.hypervisor.xen.memory import ForeignMemory

LIBRARIES = [getattr(module, name) for name in module.__all__ if name != "Library"]

SOURCE = """
#include <errno.h>
#include <stddef.h>
static int closed;
void *fake_open(void *log, unsigned flags)
{
    if (flags) { errno = EACCES; return NULL; }
    return &closed;
}
int fake_close(void *handle) { closed++; return 0; }
int fake_fails(void *handle, unsigned short domid) { errno = ESRCH; return -1; }
int fake_counts(void *handle, unsigned short domid) { return domid; }
void *fake_nothing(void *handle) { errno = ENOMEM; return NULL; }
_Bool fake_refuses(void *handle) { errno = EEXIST; return 0; }
_Bool fake_agrees(void *handle) { return 1; }
"""
PROTOTYPES = (
    ("open", c.c_void_p, (c.c_void_p, c.c_uint)),
    ("close", c.c_int, (c.c_void_p,)),
    ("fails", c.c_int, (c.c_void_p, c.c_uint16)),
    ("counts", c.c_int, (c.c_void_p, c.c_uint16)),
    ("nothing", c.c_void_p, (c.c_void_p,)),
    ("refuses", c.c_bool, (c.c_void_p,)),
    ("agrees", c.c_bool, (c.c_void_p,)),
)


@pytest.fixture(scope="module")
def shared_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    source, made = folder / "fake.c", folder / "libfake.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True, timeout=60)
    return made


@pytest.fixture
def library(shared_object: Path) -> Library:
    return Library(str(shared_object), "fake_", PROTOTYPES)


@pytest.mark.parametrize("declaration", LIBRARIES, ids=lambda declaration: declaration[0])
def test_every_prototype_is_a_symbol_of_the_installed_library(
    declaration: tuple[str, str, tuple[tuple[str, object, tuple[object, ...]], ...]],
) -> None:
    soname, prefix, prototypes = declaration
    try:
        real = c.CDLL(soname)
    except OSError:
        pytest.skip(f"{soname} is not installed")
    assert [name for name, _, _ in prototypes if not hasattr(real, prefix + name)] == []


@pytest.mark.parametrize("declaration", LIBRARIES, ids=lambda declaration: declaration[0])
def test_no_prototype_is_declared_twice(
    declaration: tuple[str, str, tuple[tuple[str, object, tuple[object, ...]], ...]],
) -> None:
    names = [name for name, _, _ in declaration[2]]
    assert len(names) == len(set(names))


def test_a_library_is_loaded_at_the_first_call_only() -> None:
    missing = Library("libnobodyhas.so.7", "x_", (("open", c.c_void_p, ()),))
    with pytest.raises(HostError, match=r"cannot load libnobodyhas\.so\.7"):
        missing.open()


def test_a_function_that_is_missing_is_named(shared_object: Path) -> None:
    prototypes = (*PROTOTYPES, ("newer", c.c_int, ()))
    with pytest.raises(HostError, match="has no fake_newer"):
        Library(str(shared_object), "fake_", prototypes).call("newer", "domain 3")


def test_a_negative_result_names_call_domain_and_cause(library: Library) -> None:
    handle = library.open(None, 0)
    with pytest.raises(HostError) as caught:
        library.call("fails", "domain 3", handle, 3)
    assert str(caught.value) == "fake_fails(domain 3): No such process"
    assert caught.value.errno == 3


def test_a_null_pointer_and_a_false_boolean_are_failures(library: Library) -> None:
    handle = library.open(None, 0)
    with pytest.raises(HostError, match="Cannot allocate memory"):
        library.call("nothing", "domain 3", handle)
    with pytest.raises(HostError, match="File exists"):
        library.call("refuses", "domain 3", handle)


def test_zero_true_and_counts_are_successes(library: Library) -> None:
    handle = library.open(None, 0)
    assert library.call("counts", "domain 0", handle, 0) == 0
    assert library.call("counts", "domain 7", handle, 7) == 7
    assert library.call("agrees", "domain 7", handle) is True


def test_an_open_that_fails_is_named_without_a_domain(library: Library) -> None:
    with pytest.raises(HostError, match=r"^fake_open: Permission denied$"):
        library.open(None, 1)


def test_arguments_are_checked_against_the_prototype(library: Library) -> None:
    with pytest.raises(c.ArgumentError):
        library.call("fails", "domain 3", library.open(None, 0), "three")


def test_without_xen_opening_is_one_clear_error() -> None:
    if Path("/dev/xen/privcmd").exists() or Path("/proc/xen/privcmd").exists():
        pytest.skip("this is a Xen host")
    with pytest.raises(HostError, match=r"xenforeignmemory_open|libxenforeignmemory"):
        ForeignMemory(3)
