"""Prints, one a line, everything in dom0 that exists for guests: run in dom0, without arguments.

Processes of device models and xl's monitors, files and sockets of the toolstack's folders, nodes
below the toolstack's xenstore folders, and domains but dom0.
"""

from __future__ import annotations

import os
import subprocess
import sys

FOLDERS = ("/run/xen", "/var/lib/xen")
DOM0 = "/local/domain/0"
NODES = ("/local/domain", f"{DOM0}/device-model", f"{DOM0}/backend", "/libxl", "/vm")
PROGRAMS = ("xl", "ioreqd", "qemu")
KEPT = "domid-history"
"""libxl's list of domids that were used lately; it comes with the first guest's end."""


def processes() -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{name}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0].decode()
        except OSError:
            continue
        programs = [os.path.basename(word.decode(errors="replace")) for word in words[:3]]
        if any(program.startswith(PROGRAMS) for program in programs):
            found.append(f"process {name} {state} {b' '.join(words[:4]).decode(errors='replace')}")
    return found


def files() -> list[str]:
    return [
        f"file {os.path.join(folder, name)}"
        for top in FOLDERS
        for folder, folders, names in os.walk(top)
        for name in folders + names
        if name != KEPT
    ]


def nodes() -> list[str]:
    found = []
    for node in NODES:
        command = ["xenstore-list", node]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        found += [f"node {node}/{name}" for name in listed.stdout.split()]
    return found


def domains() -> list[str]:
    listed = subprocess.run(["xl", "list"], capture_output=True, text=True, check=True)
    return [f"domain {line.split()[1]}" for line in listed.stdout.splitlines()[1:]]


sys.stdout.writelines(line + "\n" for line in [*processes(), *files(), *nodes(), *domains()])
