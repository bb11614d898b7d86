"""Ends a device model's process, or replaces it: run in dom0.

``end PID SIGNAL`` prints the seconds from the signal to the process's end. ``again DOMID PID``
ends the process by SIGKILL, starts the same command line again, tells the toolstack its process id,
sends `cont` to its QMP (the arguments say that it starts stopped), and prints the process id.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 20.0


def end(pid: int, number: int) -> float:
    """Send a signal and wait for the process's end; gives the seconds that it took."""
    process = os.pidfd_open(pid)
    begin = time.monotonic()
    signal.pidfd_send_signal(process, number)
    if not select.select([process], [], [], PATIENCE)[0]:
        sys.exit(f"process {pid} is still there {PATIENCE:.0f} s after signal {number}")
    return time.monotonic() - begin


def qmp_path(arguments: list[str]) -> str:
    """The socket of the monitor that libxl uses for commands."""
    for argument in arguments:
        match = re.fullmatch(r"socket,id=libxl-cmd,path=([^,]*),.*", argument)
        if match is not None:
            return match[1]
    sys.exit(f"no monitor among {arguments}")


def cont(path: str) -> None:
    """Tell the device model to run, as soon as it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as monitor:
            try:
                monitor.connect(path)
            except OSError as error:
                if time.monotonic() > deadline:
                    sys.exit(f"{path}: {error}")
                time.sleep(0.02)
                continue
            with monitor.makefile("rw") as stream:
                for command in ("qmp_capabilities", "cont"):
                    stream.write(json.dumps({"execute": command}) + "\n")
                    stream.flush()
                    while "return" not in (answer := json.loads(stream.readline())):
                        if "error" in answer:
                            sys.exit(f"{command}: {answer}")
            return


def again(domid: int, pid: int) -> int:
    """Kill and start again; gives the new process id."""
    place = Path("/proc") / str(pid)
    arguments = [os.fsdecode(word) for word in (place / "cmdline").read_bytes().split(b"\0")[:-1]]
    end(pid, signal.SIGKILL)
    with Path(f"/var/log/xen/qemu-dm-again-{domid}.log").open("ab") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    node = f"/local/domain/{domid}/image/device-model-pid"
    subprocess.run(["xenstore-write", node, str(process.pid)], check=True)
    cont(qmp_path(arguments))
    return process.pid


numbers = [int(word) for word in sys.argv[2:]]
result = end(*numbers) if sys.argv[1] == "end" else again(*numbers)
sys.stdout.write(f"{result}\n")
