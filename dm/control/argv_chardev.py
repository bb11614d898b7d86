"""How QEMU's command line names a chardev: `-chardev socket,id=x,…` and the short `-serial pty`.

Source: QEMU 7.2, chardev/char.c (qemu_chr_parse_compat) and chardev/char-socket.c.
"""

from __future__ import annotations

from dm.control.argv_values import as_number, as_switch, keyval
from dm.errors import ConfigError
from dm.host.chardev import ChardevSpec

__all__ = ["from_chardev", "from_short"]

_COMMON = frozenset(("backend", "id", "mux", "logfile", "logappend"))
# back end -> the parameters it takes
_MODELLED: dict[str, frozenset[str]] = {
    "null": frozenset(),
    "pty": frozenset(),
    "stdio": frozenset(("signal",)),
    "file": frozenset(("path", "append")),
    "ringbuf": frozenset(("size",)),
    "memory": frozenset(("size",)),
    "socket": frozenset(
        [
            "path",
            "host",
            "port",
            "fd",
            "to",
            "ipv4",
            "ipv6",
            "delay",
            "nodelay",
            "server",
            "wait",
            "telnet",
            "tn3270",
            "websocket",
            "reconnect",
            "tls-creds",
            "tls-authz",
            "abstract",
            "tight",
        ]
    ),
}
_UNMODELLED = frozenset(
    [
        "udp",
        "vc",
        "pipe",
        "serial",
        "tty",
        "parallel",
        "parport",
        "msmouse",
        "wctablet",
        "braille",
        "testdev",
        "spicevmc",
        "spiceport",
        "qemu-vdagent",
        "dbus",
    ]
)
# Short forms that are a word alone, and those that carry a path after a colon.
_WORDS = frozenset(("null", "pty", "stdio", "msmouse", "wctablet", "braille", "testdev", "vc"))
_PATHS = frozenset(("file", "pipe"))
_SOCKETS = frozenset(("tcp", "telnet", "tn3270", "websocket"))


def _checked(spec: ChardevSpec, warnings: list[str]) -> ChardevSpec:
    """The spec, if its back end exists and takes its parameters; adds what is not modelled."""
    origin = spec.origin
    if spec.backend in _UNMODELLED:
        warnings.append(
            f"{origin}: this back end is not modelled; what is written to it is dropped"
        )
        return spec
    keys = _MODELLED.get(spec.backend)
    if keys is None:
        raise ConfigError(f"{origin}: '{spec.backend}' is not a valid char driver name")
    for key in spec.values:
        if key not in keys and key not in _COMMON:
            raise ConfigError(f"{origin}: invalid parameter '{key}'")
    for key in ("mux", "logfile", "to", "telnet", "tn3270", "websocket", "tls-creds"):
        if spec.values.get(key, "off") != "off":
            warnings.append(f"{origin}: {key} is not modelled; the plain bytes are passed")
    if spec.backend == "socket":
        _check_socket(spec, warnings)
    if spec.backend == "file" and not spec.values.get("path"):
        raise ConfigError(f"{origin}: no file name given")
    return spec


def _check_socket(spec: ChardevSpec, warnings: list[str]) -> None:
    """Exactly one address, well-formed switches, and a word on what waiting would mean."""
    origin, values = spec.origin, spec.values
    if sum(key in values for key in ("path", "port", "fd")) != 1:
        raise ConfigError(f"{origin}: exactly one of path=, port= and fd= is needed")
    if "fd" in values:
        as_number(f"{origin}: fd", values["fd"], 0, 2**31 - 1)
    if "path" in values and not values["path"]:
        raise ConfigError(f"{origin}: the path is empty")
    for key in ("server", "wait", "nodelay", "abstract", "ipv4", "ipv6"):
        if key in values:
            as_switch(origin, key, values[key])
    server = as_switch(origin, "server", values.get("server", "off"))
    if server and as_switch(origin, "wait", values.get("wait", "on")):
        warnings.append(f"{origin}: wait=on is not modelled; the guest starts without waiting")


def from_chardev(text: str, warnings: list[str]) -> ChardevSpec:
    """What ``-chardev TEXT`` asks for; raises ConfigError, adds to ``warnings``."""
    origin = f"-chardev {text}"
    values = keyval(text, "backend")
    if not values.get("id"):
        raise ConfigError(f"{origin}: no id specified")
    spec = ChardevSpec(values.get("backend", ""), values["id"], values, origin)
    return _checked(spec, warnings)


def from_short(option: str, label: str, text: str, warnings: list[str]) -> ChardevSpec | None:
    """What ``-serial TEXT`` and its like ask for; None for ``none``.

    ``chardev:ID`` gives a spec with the back end ``chardev``: a reference to another one.
    :param option: with its dash, for messages; ``label``: as query-chardev shows it.
    """
    origin = f"{option} {text}"
    if text.startswith("mon:"):
        warnings.append(f"{origin}: mux is not modelled; the monitor is not reachable there")
        text = text[4:]
    if text == "none":
        return None
    kind, colon, rest = text.partition(":")
    if kind == "chardev" and rest:
        return ChardevSpec("chardev", label, {"id": rest}, origin)
    backend, values = kind, {"id": label}
    if kind == "vc" or (kind in _WORDS and not colon):
        pass
    elif kind in _PATHS and colon:
        values["path"] = rest
    elif kind == "unix":
        backend = "socket"
        values.update(keyval(rest, "path"))
    elif kind in _SOCKETS:
        backend = "socket"
        _address(origin, values, rest)
        if kind != "tcp":
            values[kind] = "on"
    elif kind == "udp":
        values["host"] = rest
    elif text.startswith("/dev/"):
        backend, values["path"] = "serial", text
    else:
        raise ConfigError(f"{origin}: '{text}' is not a valid char driver")
    return _checked(ChardevSpec(backend, label, values, origin), warnings)


def _address(origin: str, values: dict[str, str], text: str) -> None:
    """Adds the host, port and switches of ``HOST:PORT,…`` to ``values``."""
    place, _, switches = text.partition(",")
    host, colon, port = place.rpartition(":")
    if not colon or not port:
        raise ConfigError(f"{origin}: expected HOST:PORT")
    values["host"] = host.removeprefix("[").removesuffix("]")
    values["port"] = port
    values.update(keyval(switches))
