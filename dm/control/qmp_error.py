"""The error that a QMP command answers: one of QEMU's classes and a description."""

from __future__ import annotations

__all__ = ["UNSUPPORTED", "QmpError"]

# QEMU 7.2, include/qapi/qmp/qerror.h: what is said of anything that a machine lacks.
UNSUPPORTED = "this feature or command is not currently supported"


class QmpError(Exception):
    """Answered as ``{"error": {"class": …, "desc": …}}``.

    :param error_class: GenericError, CommandNotFound, DeviceNotActive, DeviceNotFound or
        KVMMissingCap.
    """

    def __init__(self, description: str, error_class: str = "GenericError") -> None:
        super().__init__(description)
        self.error_class = error_class
