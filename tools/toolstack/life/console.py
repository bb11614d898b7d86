"""A person's end of a guest's console: the serial port's terminal, or, without one, its lines.

What differs from xl: a guest without a serial port of its own terminal shows the lines that it
writes to port 0xe9 or to the paravirtual console, and nothing can be typed.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.toolstack.errors import HostFailure

__all__ = ["ESCAPE", "follow", "talk"]

ESCAPE = b"\x1d"
"""Ctrl-], as with xl."""
CHUNK = 4096
LOOK_SECONDS = 0.2


def talk(path: str, opened: Callable[[], object]) -> None:
    """Connect standard input and output with the terminal at ``path``, until Ctrl-] or its end.

    ``opened`` is called when nothing can be missed any more. HostFailure: it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise HostFailure(f"open {path}: {error.strerror}") from None
    try:
        _raw(fd)
        opened()
        own = sys.stdin.fileno() if sys.stdin.isatty() else None
        before = None if own is None else termios.tcgetattr(own)
        try:
            if own is not None:
                tty.setraw(own)
            _pass_on(fd)
        finally:
            if own is not None and before is not None:
                termios.tcsetattr(own, termios.TCSADRAIN, before)
    finally:
        os.close(fd)


def _raw(fd: int) -> None:
    """The guest's bytes are its own; the terminal adds and echoes nothing."""
    try:
        tty.setraw(fd)
    except termios.error:
        pass


def _pass_on(fd: int) -> None:
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    watched = [source, fd]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if fd in ready:
            try:
                data = os.read(fd, CHUNK)
            except OSError:
                return  # EIO: the device model has closed its end
            if not data:
                return
            _write(sink, data)
        if source in ready:
            data = os.read(source, CHUNK)
            text, escape, _ = data.partition(ESCAPE)
            _write(fd, text)
            if escape:
                return
            if not data:
                watched.remove(source)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def follow(path: Path, alive: Callable[[], Any], write: Callable[[bytes], object]) -> None:
    """Give what is in the file at ``path`` and what comes, until ``alive`` says no."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise HostFailure(f"open {path}: {error.strerror}") from None
    with file:
        while True:
            living = alive()
            data = file.read()
            if data:
                write(data)
            if not living:
                return
            # A regular file is always ready; its growth tells nobody.
            select.select([], [], [], LOOK_SECONDS)
