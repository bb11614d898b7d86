"""The arrows that must never be, what start-up may import, and the shape of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "dm", "devices", "tools")
OURS = (*PACKAGES, "tests")

FORBIDDEN = {
    "protocol": ("dm", "devices", "tools", "tests"),
    "dm": ("devices", "tools", "tests"),
    "devices": ("dm.server", "dm.hypervisor", "dm.host", "dm.control", "tools", "tests"),
    "tools": ("tests",),
    "dm.device": ("dm.server", "dm.hypervisor", "dm.control", "dm.host", "dm.machine"),
    "dm.machine": ("dm.server", "dm.hypervisor", "dm.control", "dm.host"),
    "dm.server": ("dm.control", "dm.host"),
    "dm.hypervisor": ("dm.server", "dm.control", "dm.host", "dm.machine"),
    "dm.host": ("dm.server", "dm.hypervisor", "dm.control", "dm.machine", "dm.device"),
    "dm.observe": ("dm.server", "dm.hypervisor", "dm.control", "dm.host"),
    "tools.hypervisor": ("dm", "devices"),
    "tools.toolstack": ("dm", "devices"),
}
"""Whoever is under the key imports nothing under these, at the top, in a function or for types."""

CONSTRUCT_USERS = ("protocol", "tools", "tests")
"""construct costs more than the rest of a start-up; the device model never imports it."""

HEAVY = (
    "argparse",
    "asyncio",
    "collections",
    "construct",
    "contextlib",
    "ctypes",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "importlib",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "random",
    "re",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "typing",
    "uuid",
    "weakref",
)
START_UP = (
    "dm.control.main",
    "dm.control.process",
    "dm.hypervisor.local.hypervisor",
    "dm.hypervisor.xen.hypervisor",
    "dm.server.virtual",
    "devices.xenfv",
)

LONG_FILES = {
    "protocol/layouts.py": "generated",
    "dm/device/pci.py": "a configuration space and its registers",
    "dm/device/register.py": "declarations and their docstrings",
}
LONGEST = 400


def modules() -> Iterator[tuple[str, Path]]:
    """Each of our modules by its dotted name."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(name: str, path: Path, source: str) -> Iterator[str]:
    """The absolute names of all that the module imports, wherever in it."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def violations(name: str, imported: set[str]) -> list[str]:
    """The forbidden arrows from a module that imports these names."""
    found = []
    for owner, forbidden in FORBIDDEN.items():
        if under(name, (owner,)):
            found += [f"{name} -> {one}" for one in sorted(imported) if under(one, forbidden)]
    if not under(name, CONSTRUCT_USERS):
        found += [f"{name} -> {one}" for one in sorted(imported) if under(one, ("construct",))]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_arrow_points_the_wrong_way(name: str) -> None:
    path = MODULES[name]
    assert violations(name, set(imports(name, path, path.read_text()))) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("protocol.x", "import dm"),
        ("devices.x", "def f():\n    from dm.server import loop"),
        ("devices.x", "if TYPE_CHECKING:\n    import dm.hypervisor.interface as i"),
        ("dm.control.x", "from devices import cmos"),
        ("dm.machine.x", "from ..server.loop import Loop"),
        ("dm.device.x", "from dm import server"),
        ("dm.server.x", "from construct import Struct"),
        ("tools.hypervisor.x", "from dm.errors import HostError"),
    ],
)
def test_a_wrong_arrow_would_be_found(name: str, source: str) -> None:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    assert violations(name, set(imports(name, path, source)))


@pytest.mark.parametrize("name", MODULES)
def test_a_file_says_what_it_knows_and_is_not_too_long(name: str) -> None:
    path = MODULES[name]
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), f"{path} begins with no docstring"
    relative = path.relative_to(ROOT).as_posix()
    too_long = source.count("\n") > LONGEST
    assert too_long == (relative in LONG_FILES), f"{relative}: {source.count(chr(10))} lines"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_declares_its_public_names_and_they_exist(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    declared: set[str] = set()
    bound = set(public)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            walked = (one for target in targets for one in ast.walk(target))
            names = {one.id for one in walked if isinstance(one, ast.Name)}
            bound |= names
            if "__all__" in names and isinstance(node.value, ast.List | ast.Tuple):
                declared = {ast.literal_eval(item) for item in node.value.elts}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{name} has a star import"
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    assert declared <= bound, f"{name}.__all__ has names that do not exist"
    assert declared or not public, f"{name} has public names and no __all__"


def loaded_after(statements: str) -> set[str]:
    """The modules of a fresh interpreter without site packages after ``statements``."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statements}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(run.stdout.split())


def test_start_up_imports_nothing_heavy() -> None:
    bare = loaded_after("pass")
    loaded = loaded_after("; ".join(f"import {name}" for name in START_UP)) - bare
    assert set(START_UP) <= loaded
    assert sorted(name for name in loaded if under(name, HEAVY)) == []


@pytest.mark.parametrize("name", [n for n in MODULES if under(n, ("devices",))])
def test_a_device_file_imports_nothing_heavy(name: str) -> None:
    loaded = loaded_after(f"import {name}") - loaded_after("pass")
    assert sorted(one for one in loaded if under(one, HEAVY)) == []
