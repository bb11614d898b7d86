"""`ioreqd demo`: a guest on ioreqd, stand-alone or created by a stock xl on a real Xen host."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from dm.errors import ConfigError, HostError
from tools.xenlab import DEFAULT_XEN, RELEASES, Lab, lab_available
from tools.xenlab.tree import build_wheel

__all__ = ["HELP", "configure", "run"]

HELP = "show a guest on ioreqd: stand-alone, or on a real Xen host that runs in an emulator"

GUEST = """\
name = "demo"
type = "hvm"
memory = 32
vga = "none"
vnc = 0
serial = "pty"
device_model_version = "qemu-xen"
device_model_override = "/usr/local/bin/ioreqd-dm"
"""

SCRIPT = """\
echo '# cat demo.cfg'; cat demo.cfg
echo '# xl create demo.cfg'; xl create demo.cfg || exit
echo '# xl list'; xl list
echo '# xl console -t serial demo'
timeout 60 sh -c 'sed -u "/No bootable device/q" <"$(xenstore-read \
  /local/domain/$(xl domid demo)/serial/0/tty)"'; status=$?
echo '# xl destroy demo'; xl destroy demo
exit $status
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--xen",
        nargs="?",
        const=DEFAULT_XEN,
        choices=sorted(RELEASES),
        help="on this release of Xen, in the laboratory",
    )
    parser.add_argument("--wheel", type=Path, help="ioreqd's wheel (default: made from the tree)")


def run(arguments: argparse.Namespace) -> int:
    """Show a guest from its start to its last word; its exit status is the guest's."""
    return _on_xen(arguments) if arguments.xen else _stand_alone()


def _stand_alone() -> int:
    from tools.prototype.demo import DEMO_GUEST
    from tools.prototype.plan import Plan
    from tools.prototype.run import Run

    with Run(Plan(devices=("edu",), kernel=DEMO_GUEST)) as running:
        running.start()
        return running.wait()


def _on_xen(arguments: argparse.Namespace) -> int:
    reason = lab_available()
    if reason is not None:
        raise ConfigError(reason)
    with tempfile.TemporaryDirectory(prefix="ioreqd-demo-") as folder:
        share = Path(folder) / "share"
        share.mkdir()
        (share / "demo.cfg").write_text(GUEST)
        wheel = arguments.wheel or build_wheel(Path(folder))
        with Lab(xen=arguments.xen, share=share, install=[wheel], progress=_say) as lab:
            result = lab.run(SCRIPT, timeout=180, on_output=_show)
    if result.status:
        raise HostError(f"the demonstration ended with status {result.status}")
    return 0


def _show(is_stderr: bool, data: bytes) -> None:
    stream = sys.stderr if is_stderr else sys.stdout
    stream.buffer.write(data)
    stream.flush()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
