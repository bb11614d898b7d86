from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import ConfigError
from tools.xenlab.sources import host_codename, host_sources, rewrite_deb822, rewrite_oneline

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
suites: bookworm-security
components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 bookworm
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822_stanzas_are_pointed_at_the_target_suite() -> None:
    assert rewrite_deb822(DEB822, "bookworm", "trixie") == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Suites: trixie trixie-updates\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://mirror.example/debian-security\n"
        "suites: trixie-security\n"
        "components: main\n"
        "Signed-By: \n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        " .\n"
        " bookworm\n"
        " -----END PGP PUBLIC KEY BLOCK-----\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "Enabled: no",
        "Types: deb-src",
        "Suites: nodistro",
        "Suites: bookworm-pgdg",
        "Suites: cloud-sdk-bookworm",
        "Components: stable",
    ],
)
def test_a_deb822_stanza_that_is_not_the_hosts_debian_is_left_out(line: str) -> None:
    fields = {"Types": "deb", "URIs": "http://x/", "Suites": "bookworm", "Components": "main"}
    name, _, value = line.partition(": ")
    text = "".join(f"{key}: {item}\n" for key, item in {**fields, name: value}.items())
    assert rewrite_deb822(text, "bookworm", "trixie") == ""


def test_one_line_sources_keep_options_and_lose_other_components() -> None:
    text = """\
deb http://mirror.example/debian bookworm main contrib
deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/debian bookworm-updates main # daily
deb http://mirror.example/debian-security  bookworm-security  main
deb-src http://mirror.example/debian bookworm main
# deb http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb https://other.example/debian bookworm stable
deb http://mirror.example/debian sid main
"""
    assert rewrite_oneline(text, "bookworm", "trixie") == (
        "deb http://mirror.example/debian trixie main\n"
        "deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/debian trixie-updates main\n"
        "deb http://mirror.example/debian-security trixie-security main\n"
    )


def test_an_alias_of_the_release_is_replaced_by_the_code_name() -> None:
    assert rewrite_oneline("deb http://x/ stable main\n", "trixie", "bookworm") == (
        "deb http://x/ bookworm main\n"
    )


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    rewrite_oneline(text, "bookworm", "trixie")
    rewrite_deb822(text, "bookworm", "trixie")


def _machine(folder: Path) -> tuple[Path, Path]:
    (folder / "apt/sources.list.d").mkdir(parents=True)
    release = folder / "os-release"
    release.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    return folder / "apt", release


def test_both_formats_of_one_machine_are_gathered(tmp_path: Path) -> None:
    apt, release = _machine(tmp_path)
    (apt / "sources.list").write_text("deb http://a/ bookworm main\n")
    (apt / "sources.list.d/b.list").write_text("deb http://b/ bookworm-security main\n")
    (apt / "sources.list.d/c.sources").write_text(DEB822)
    (apt / "sources.list.d/d.list.disabled").write_text("deb http://d/ bookworm main\n")
    sources = host_sources("trixie", apt, release)
    assert sources.oneline == "deb http://a/ trixie main\ndeb http://b/ trixie-security main\n"
    assert sources.deb822 == rewrite_deb822(DEB822, "bookworm", "trixie")
    written = sources.write(tmp_path)
    assert [path.suffix for path in written] == [".sources", ".list"]
    assert [path.read_text() for path in written] == [sources.deb822, sources.oneline]


def test_a_machine_without_debian_sources_is_a_config_error(tmp_path: Path) -> None:
    apt, release = _machine(tmp_path)
    with pytest.raises(ConfigError, match="no package source of Debian bookworm"):
        host_sources("trixie", apt, release)


def test_a_machine_without_code_name_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=alpine\n")
    with pytest.raises(ConfigError, match="names no release"):
        host_codename(tmp_path / "os-release")
