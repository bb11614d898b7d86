"""Socket back ends: clients come, go, break and stall, and none of it reaches the guest."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.control.argv_chardev import from_chardev
from dm.errors import ConfigError
from dm.host.chardev import KEPT_BYTES, Chardev, ChardevSet
from tests.unit.host.conftest import Device
from tests.unit.loop import MiniLoop

Opener = Callable[[str], Chardev]


def client(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


def receive(loop: MiniLoop, sock: socket.socket, count: int) -> bytes:
    got = bytearray()
    sock.setblocking(False)

    def enough() -> bool:
        try:
            got.extend(sock.recv(65536))
        except BlockingIOError:
            pass
        return len(got) >= count

    loop.run_until(enough)
    return bytes(got)


def test_a_client_talks_with_the_device(loop: MiniLoop, serial: Opener, tmp_path: Path) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    device = Device(chardev)
    assert chardev.filename == f"disconnected:unix:{tmp_path}/s,server=on"
    with client(tmp_path / "s") as peer:
        loop.run_until(lambda: chardev.backend_open)
        assert chardev.filename == f"unix:{tmp_path}/s,server=on"
        assert chardev.write(b"hello") == 5
        assert receive(loop, peer, 5) == b"hello"
        peer.send(b"answer")
        loop.run_until(lambda: bytes(device.got) == b"answer")
    loop.run_until(lambda: not chardev.backend_open)
    assert device.events == [True, False]
    loop.settle()


def test_clients_may_reconnect_and_find_what_was_written_meanwhile(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server,nowait")
    for turn in range(3):
        text = b"boot message %d" % turn
        chardev.write(text)
        with client(tmp_path / "s") as peer:
            assert receive(loop, peer, len(text)) == text
        loop.run_until(lambda: not chardev.backend_open)


def test_a_second_client_waits_for_the_first_to_leave(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    first, second = client(tmp_path / "s"), client(tmp_path / "s")
    loop.run_until(lambda: chardev.backend_open)
    loop.settle()
    chardev.write(b"1")
    assert receive(loop, first, 1) == b"1"
    first.close()
    loop.run_until(lambda: not chardev.backend_open)
    loop.run_until(lambda: chardev.backend_open)
    chardev.write(b"2")
    assert receive(loop, second, 1) == b"2"
    second.close()


def test_output_for_nobody_is_bounded_and_the_newest_is_kept(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    text = b"".join(b"%07d\n" % number for number in range(20_000))
    for start in range(0, len(text), 1000):
        assert chardev.write(text[start : start + 1000]) == len(text[start : start + 1000])
    with client(tmp_path / "s") as peer:
        assert receive(loop, peer, KEPT_BYTES) == text[-KEPT_BYTES:]
    assert chardev.dropped == len(text) - KEPT_BYTES


def test_a_client_that_does_not_read_makes_write_accept_less_and_is_told_of_room(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    device = Device(chardev)
    with client(tmp_path / "s") as peer:
        loop.run_until(lambda: chardev.backend_open)
        accepted, chunk = 0, bytes(range(256)) * 16
        while (taken := chardev.write(chunk)) == len(chunk):
            accepted += taken
            assert accepted < 64 << 20
            loop.step()
        accepted += taken
        assert len(receive(loop, peer, accepted)) == accepted
        assert device.writable > 0
        assert chardev.write(b"more") == 4


def test_a_reset_connection_is_only_a_lost_client(
    loop: MiniLoop, named: Opener, tmp_path: Path
) -> None:
    chardev = named("socket,id=x,host=127.0.0.1,port=0,server=on,wait=off")
    device = Device(chardev)
    port = int(chardev.filename.split(",")[0].rpartition(":")[2])
    peer = socket.create_connection(("127.0.0.1", port), timeout=10)
    loop.run_until(lambda: chardev.backend_open)
    local = f"127.0.0.1:{port}"
    assert chardev.filename.startswith(f"tcp:{local},server=on <-> 127.0.0.1:")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    loop.run_until(lambda: not chardev.backend_open)
    assert chardev.write(b"still here") == 10
    assert device.events == [True, False]
    loop.settle()


def test_a_hang_up_while_the_device_has_no_room_does_not_spin(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    Device(chardev, room=0)
    peer = client(tmp_path / "s")
    peer.send(b"unwanted")
    loop.run_until(lambda: chardev.backend_open)
    peer.close()
    loop.run_until(lambda: not chardev.backend_open)
    loop.settle()


def test_a_client_mode_back_end_connects_and_reports_a_peer(
    loop: MiniLoop, named: Opener, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "srv"))
        server.listen()
        chardev = named(f"socket,id=x,path={tmp_path}/srv")
        assert chardev.filename == "unix:"
        peer, _ = server.accept()
        with peer:
            chardev.write(b"hi")
            assert receive(loop, peer, 2) == b"hi"
    loop.run_until(lambda: not chardev.backend_open)
    assert chardev.filename == f"disconnected:unix:{tmp_path}/srv"


def test_reconnect_tries_again_after_its_seconds(
    loop: MiniLoop, named: Opener, tmp_path: Path
) -> None:
    chardev = named(f"socket,id=x,path={tmp_path}/later,reconnect=2")
    assert not chardev.backend_open
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "later"))
        server.listen()
        loop.advance(1_999_999_999)
        assert not chardev.backend_open
        loop.advance(1)
        assert chardev.backend_open


def test_an_inherited_listening_socket_is_served_and_its_path_left(
    loop: MiniLoop, chardevs: ChardevSet, tmp_path: Path
) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "given"))
    server.listen(1)
    spec = from_chardev(f"socket,id=x,fd={server.detach()},server=on,wait=off", [])
    chardev = chardevs.open(spec)
    assert chardev.filename == f"disconnected:unix:{tmp_path}/given,server=on"
    with client(tmp_path / "given"):
        loop.run_until(lambda: chardev.backend_open)
    chardev.close()
    assert os.path.exists(tmp_path / "given")


def test_a_stale_socket_is_replaced_and_only_our_own_is_removed(
    loop: MiniLoop, chardevs: ChardevSet, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    old = chardevs.open(from_chardev(f"socket,id=old,path={path},server=on,wait=off", []))
    new = chardevs.open(from_chardev(f"socket,id=new,path={path},server=on,wait=off", []))
    old.close()
    assert path.exists(), "the successor's socket stays"
    with client(path):
        loop.run_until(lambda: new.backend_open)
    new.close()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_never_replaced(named: Opener, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ConfigError, match=r"-chardev socket,id=x.*[Aa]ddress"):
        named(f"socket,id=x,path={tmp_path}/precious,server=on,wait=off")
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize(
    "text",
    [
        "socket,id=x,path=/nonexistent/dir/s,server=on,wait=off",
        "socket,id=x,path=/nonexistent/s",
        "socket,id=x,fd=999,server=on,wait=off",
        "socket,id=x,fd=999",
        "socket,id=x,host=256.0.0.1.invalid,port=1",
        "file,id=x,path=/nonexistent/f",
    ],
)
def test_a_back_end_that_cannot_be_had_names_its_option(named: Opener, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(text)
    message = str(caught.value)
    assert f"-chardev {text}" in message
    assert "\n" not in message


def test_a_descriptor_that_does_not_listen_is_refused(chardevs: ChardevSet) -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(ConfigError, match="not a listening socket"):
        chardevs.open(from_chardev(f"socket,id=x,fd={left.fileno()},server=on,wait=off", []))


def use_up_descriptors(fd: int, filler: list[int]) -> None:
    try:
        while True:
            filler.append(os.dup(fd))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise


def test_a_client_for_whom_no_descriptor_is_left_is_turned_away_without_spinning(
    loop: MiniLoop, serial: Opener, tmp_path: Path
) -> None:
    chardev = serial(f"unix:{tmp_path}/s,server=on,wait=off")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with client(tmp_path / "s") as peer:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        filler: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        try:
            use_up_descriptors(peer.fileno(), filler)
            loop.settle()
            peer.setblocking(False)
            assert peer.recv(1) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in filler:
                os.close(fd)
    assert not chardev.backend_open
    with client(tmp_path / "s"):
        loop.run_until(lambda: chardev.backend_open)
