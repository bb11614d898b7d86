"""The laboratory's agent: the frames spoken over dom0's virtio-serial port, and dom0's end of them.

This file runs twice: as a module on the machine outside, for the frames, and as a program in dom0,
where nothing else of this project is installed and each import costs a tenth of a second.

A frame is a big-endian header (kind u8, command id u32, payload length u32) and its payload.

======  =========  ======================================================
kind    direction  payload
======  =========  ======================================================
START   to dom0    text for ``bash -c``, UTF-8
SIGNAL  to dom0    i32, the signal for the command's process group
READY   from dom0  empty, id 0: dom0 is up
STDOUT  from dom0  bytes that the command wrote
STDERR  from dom0  bytes that the command wrote
EXIT    from dom0  i32, the exit status, negative: the signal that ended it
======  =========  ======================================================
"""

from __future__ import annotations

import os
import select
import struct
import sys

__all__ = ["EXIT", "MAX_PAYLOAD", "NUMBER", "READY", "SIGNAL", "START", "STDERR", "STDOUT"]
__all__ += ["FrameError", "Splitter", "pack", "serve"]

START, SIGNAL = 1, 2
READY, STDOUT, STDERR, EXIT = 16, 17, 18, 19

MAX_PAYLOAD = 1 << 20
NUMBER = struct.Struct(">i")
_HEADER = struct.Struct(">BII")
_CHUNK = 1 << 16
_LEFT_BEHIND = 16  # chunks read after a command's end, if a child of it keeps writing
_RESET_SIGNALS = (13, 25)  # SIGPIPE and SIGXFSZ, which Python ignores


class FrameError(Exception):
    """The peer sent a frame that no peer sends."""


def pack(kind: int, ident: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"a payload of {len(payload)} bytes is too long")
    return _HEADER.pack(kind, ident, len(payload)) + payload


class Splitter:
    """Cuts a byte stream into frames; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the frames (kind, id, payload) that ``data`` completes, in order.

        Raises FrameError at a length beyond MAX_PAYLOAD.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEADER.size:
            kind, ident, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes is too long")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, ident, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return frames


class _Job:
    """One running command: its process, and the pipes that it writes to."""

    def __init__(self, ident: int, text: str) -> None:
        self.ident = ident
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self.pipes = {out: STDOUT, err: STDERR}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_end, 1),
            (os.POSIX_SPAWN_DUP2, err_end, 2),
        ]
        self.pid = os.posix_spawn(
            "/bin/bash",
            ["bash", "-c", text],
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigdef=_RESET_SIGNALS,
        )
        os.close(out_end)
        os.close(err_end)
        self.pidfd = os.pidfd_open(self.pid)
        for pipe in self.pipes:
            os.set_blocking(pipe, False)


class _Agent:
    def __init__(self, port_in: int, port_out: int) -> None:
        self._in = port_in
        self._out = port_out
        self._splitter = Splitter()
        self._poll = select.poll()
        self._poll.register(port_in, select.POLLIN)
        self._jobs: dict[int, _Job] = {}
        self._by_pipe: dict[int, _Job] = {}
        self._by_pidfd: dict[int, _Job] = {}

    def _send(self, kind: int, ident: int, payload: bytes = b"") -> None:
        rest = memoryview(pack(kind, ident, payload))
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def _start(self, ident: int, payload: bytes) -> None:
        try:
            job = _Job(ident, payload.decode())
        except (OSError, ValueError) as error:
            self._send(STDERR, ident, f"xenlab agent: {error}\n".encode())
            self._send(EXIT, ident, NUMBER.pack(126))
            return
        self._jobs[ident] = job
        self._by_pidfd[job.pidfd] = job
        self._poll.register(job.pidfd, select.POLLIN)
        for pipe in job.pipes:
            self._by_pipe[pipe] = job
            self._poll.register(pipe, select.POLLIN)

    def _signal(self, ident: int, payload: bytes) -> None:
        job = self._jobs.get(ident)
        if job is not None:
            try:
                os.killpg(job.pid, NUMBER.unpack(payload)[0])
            except ProcessLookupError:
                pass

    def _close_pipe(self, job: _Job, pipe: int) -> None:
        self._poll.unregister(pipe)
        del self._by_pipe[pipe], job.pipes[pipe]
        os.close(pipe)

    def _forward(self, job: _Job, pipe: int) -> bool:
        """Pass one chunk on; return whether there may be more."""
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._send(job.pipes[pipe], job.ident, data)
            return True
        self._close_pipe(job, pipe)
        return False

    def _finish(self, job: _Job) -> None:
        """Report a command that ended. A daemon that it left may hold its pipes: they are cut."""
        ended, status = os.waitpid(job.pid, os.WNOHANG)
        if not ended:
            return  # the event was for an earlier command whose descriptor had this number
        for pipe in list(job.pipes):
            chunks = 0
            while chunks < _LEFT_BEHIND and self._forward(job, pipe):
                chunks += 1
            if pipe in job.pipes:
                self._close_pipe(job, pipe)
        self._poll.unregister(job.pidfd)
        os.close(job.pidfd)
        del self._by_pidfd[job.pidfd], self._jobs[job.ident]
        self._send(EXIT, job.ident, NUMBER.pack(os.waitstatus_to_exitcode(status)))

    def _receive(self) -> bool:
        data = os.read(self._in, _CHUNK)
        for kind, ident, payload in self._splitter.feed(data):
            if kind == START:
                self._start(ident, payload)
            elif kind == SIGNAL:
                self._signal(ident, payload)
            else:
                raise FrameError(f"no frame to dom0 has kind {kind}")
        return bool(data)

    def run(self) -> None:
        self._send(READY, 0)
        try:
            self._serve()
        finally:
            for job in self._jobs.values():
                os.killpg(job.pid, 9)

    def _serve(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._in:
                    if not self._receive():
                        return
                elif descriptor in self._by_pidfd:
                    self._finish(self._by_pidfd[descriptor])
                elif descriptor in self._by_pipe:
                    self._forward(self._by_pipe[descriptor], descriptor)


def serve(port_in: int, port_out: int) -> None:
    """Run commands for the peer at these descriptors until it closes them; then kill what runs.

    Raises FrameError if the peer does not speak the protocol.
    """
    for port in (port_in, port_out):
        os.set_inheritable(port, False)
    _Agent(port_in, port_out).run()


if __name__ == "__main__":
    _port = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    serve(_port, _port)
