"""The declarations against Xen's and Linux's own headers, as a C compiler reads them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.protocol import c_names
from tests.unit.protocol.c_facts import (
    declarations,
    evaluate,
    facts,
    facts_of,
    headers_present,
    macros,
)
from tests.unit.protocol.c_names import HEADERS, LEFT_OUT, MODULES, NOT_IN_HEADERS

# Families of macros of which every member must be declared or left out with a reason.
FAMILIES = re.compile(
    r"(STATE_IO|IOREQ_(TYPE_|BUFFER|READ|WRITE)|ACPI_\w+_V[01]$|HVM_PARAM_|HVM_NR_PARAMS|HVMPTM_"
    r"|HVMPV_|XEN_ALTP2M_|XEN_HVM_MCA_|XEN_DMOP_|HVM_IOREQSRV_|SHUTDOWN_|HVM_E820_|HVM_INFO_P"
    r"|HVM_INFO_OFF|HVM_BELOW_4G_|HVM_FILE_|XEN_HVM_START_|XEN_HVM_MEMMAP_|XENSTORE_(?!RING_IDX)"
    r"|XENMEM_resource_ioreq|E820_|PCI_COMMAND_|PCI_BASE_ADDRESS_SPACE_)"
)

COMPARED = [module for module in MODULES if any(True for _ in facts(module))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc (Debian package gcc)")
    path = tmp_path_factory.mktemp("headers")
    if not headers_present(path):
        pytest.skip(f"some of {', '.join(HEADERS)} missing (Debian packages libxen-dev, libc6-dev)")
    return path


@pytest.mark.parametrize("module", COMPARED, ids=lambda module: module.__name__)
def test_declarations_equal_the_headers(module: ModuleType, folder: Path) -> None:
    stated = list(facts(module))
    values = evaluate([fact.expression for fact in stated], folder)
    assert len(values) == len(stated)
    wrong = [
        f"{fact.label}: declared {fact.expected:#x}, {fact.expression} is {value:#x}"
        for fact, value in zip(stated, values, strict=True)
        if value != fact.expected
    ]
    assert wrong == []


def test_no_constant_of_the_headers_is_forgotten(folder: Path) -> None:
    used = {
        word
        for module in COMPARED
        for fact in facts(module)
        for word in re.findall(r"\w+", fact.expression)
    }
    family = {name for name in macros(folder) if FAMILIES.match(name)}
    assert len(family) > 100
    assert family - used - LEFT_OUT.keys() == set()


def test_a_wrong_declaration_is_noticed(folder: Path) -> None:
    fact = next(fact for fact in facts(MODULES[0]) if fact.label == "IOREQ.flags.df")
    assert evaluate([fact.expression], folder) == [0x40]
    assert evaluate([fact.expression.replace("v.df", "v.dir")], folder) != [fact.expected]


def test_every_declaration_is_compared_or_excused() -> None:
    for module in MODULES:
        for name, value in declarations(module):
            assert name in NOT_IN_HEADERS or any(True for _ in facts_of(name, value)), name


def test_nothing_that_is_excused_could_be_compared() -> None:
    tables = (c_names.ENUM_PATTERNS, c_names.CONSTANT_NAMES, c_names.MACRO_STRUCTS)
    for table in tables:
        assert table.keys() & NOT_IN_HEADERS.keys() == set()


def test_no_table_names_what_is_not_declared() -> None:
    names = {name for module in MODULES for name, _ in declarations(module)}
    tables = (
        c_names.ENUM_PATTERNS,
        c_names.MEMBER_NAMES,
        c_names.CONSTANT_NAMES,
        c_names.SIZE_EXPRESSIONS,
        c_names.MACRO_STRUCTS,
        c_names.WORD_MASKS,
        c_names.NOT_IN_HEADERS,
    )
    for table in tables:
        assert {key.split(".")[0] for key in table} - names == set()
