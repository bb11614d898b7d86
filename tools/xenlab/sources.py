"""How APT's source lists look (one-line and deb822), and how to point them at another suite.

Format: sources.list(5). The laboratory names no mirror: it takes this machine's Debian sources and
replaces the suite, so proxies, local mirrors and keyrings stay what they are here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dm.errors import ConfigError

__all__ = ["Sources", "host_codename", "host_sources", "rewrite_deb822", "rewrite_oneline"]

_ALIASES = ("stable", "oldstable")
_POCKETS = ("", "-updates", "-security")
_COMPONENT = "main"


@dataclass(frozen=True)
class Sources:
    """Source lists for one suite, by format; either text may be empty."""

    deb822: str
    oneline: str

    def write(self, folder: Path) -> list[Path]:
        """Write the lists that are not empty into ``folder``; return their paths."""
        texts = {"xenlab.sources": self.deb822, "xenlab.list": self.oneline}
        paths = []
        for name, text in texts.items():
            if text:
                path = folder / name
                path.write_text(text)
                paths.append(path)
        return paths


def _rename(suite: str, host: str, target: str) -> str | None:
    """Return ``suite`` with the host's code name replaced, None if it is not the host's Debian."""
    for name in (host, *_ALIASES):
        for pocket in _POCKETS:
            if suite == name + pocket:
                return target + pocket
    return None


def _rename_all(suites: list[str], host: str, target: str) -> list[str]:
    renamed = [_rename(suite, host, target) for suite in suites]
    return [suite for suite in renamed if suite is not None]


def _stanza_fields(stanza: str) -> dict[str, str]:
    """Return the fields of one deb822 stanza; continuation lines stay part of the value."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def rewrite_deb822(text: str, host: str, target: str) -> str:
    """Return the stanzas of ``text`` that serve suite ``host``, changed to serve ``target``.

    Source packages, disabled stanzas, other vendors' suites and components beyond main are left
    out.
    """
    stanzas = []
    for block in re.split(r"\n[ \t]*\n", text):
        fields = _stanza_fields(block)
        lower = {name.lower(): name for name in fields}

        def words(
            name: str, fields: dict[str, str] = fields, lower: dict[str, str] = lower
        ) -> list[str]:
            return fields[lower[name]].split() if name in lower else []

        suites = _rename_all(words("suites"), host, target)
        enabled = words("enabled") not in (["no"], ["false"], ["0"])
        if not (
            suites and enabled and "deb" in words("types") and _COMPONENT in words("components")
        ):
            continue
        fields[lower["types"]] = "deb"
        fields[lower["suites"]] = " ".join(suites)
        fields[lower["components"]] = _COMPONENT
        stanzas.append("".join(f"{name}: {value}\n" for name, value in fields.items()))
    return "\n".join(stanzas)


_ONE_LINE = re.compile(
    r"deb\s+(?P<options>\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.*)"
)


def rewrite_oneline(text: str, host: str, target: str) -> str:
    """Return the lines of a sources.list that serve suite ``host``, changed to serve ``target``."""
    lines = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None or match["uri"].startswith("cdrom:"):
            continue
        suite = _rename(match["suite"], host, target)
        if suite is not None and _COMPONENT in match["rest"].split():
            lines.append(f"deb {match['options'] or ''}{match['uri']} {suite} {_COMPONENT}\n")
    return "".join(lines)


def host_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """Return this machine's Debian code name; raise ConfigError where there is none."""
    try:
        text = os_release.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {os_release}: {error.strerror}") from None
    match = re.search(r"^VERSION_CODENAME=[\"']?([\w-]+)", text, re.MULTILINE)
    if match is None:
        raise ConfigError(f"{os_release} names no release; the laboratory needs a Debian machine")
    return match[1]


def host_sources(
    target: str,
    apt: Path = Path("/etc/apt"),
    os_release: Path = Path("/etc/os-release"),
) -> Sources:
    """Return this machine's Debian sources, pointed at suite ``target``.

    Raises ConfigError if none of the source lists under ``apt`` serves this machine's release.
    """
    host = host_codename(os_release)
    parts = apt / "sources.list.d"
    deb822 = [
        rewrite_deb822(path.read_text(), host, target) for path in sorted(parts.glob("*.sources"))
    ]
    lists = [apt / "sources.list", *sorted(parts.glob("*.list"))]
    oneline = [rewrite_oneline(path.read_text(), host, target) for path in lists if path.is_file()]
    sources = Sources("\n".join(text for text in deb822 if text), "".join(oneline))
    if not (sources.deb822 or sources.oneline):
        raise ConfigError(f"no package source of Debian {host} (component main) found in {apt}")
    return sources
