"""Child processes as an event source, and the start of device models. This is the public face."""

from __future__ import annotations

from tools.toolstack.children.child_processes import Child, ChildProcesses
from tools.toolstack.children.device_model import START_TIMEOUT_NS, DeviceModel
from tools.toolstack.children.loop import EventLoop, Loop
from tools.toolstack.children.modes import Answer, Hooks, Owner
from tools.toolstack.children.program import Program
from tools.toolstack.children.readiness import Readiness, StoreReadiness, pid_path, state_path

__all__ = [
    "START_TIMEOUT_NS",
    "Answer",
    "Child",
    "ChildProcesses",
    "DeviceModel",
    "EventLoop",
    "Hooks",
    "Loop",
    "Owner",
    "Program",
    "Readiness",
    "StoreReadiness",
    "pid_path",
    "state_path",
]
