"""The recipe: from Debian packages to the hypervisor, kernel, initrd and root disk of a dom0."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dm.errors import HostError
from tools.xenlab import agent
from tools.xenlab.cache import cache_folder, content_key, ensure
from tools.xenlab.kernel import extract_kernel
from tools.xenlab.needs import require_root, require_tools
from tools.xenlab.process import compile_python, copy_tree_image, run_tool
from tools.xenlab.release import Release
from tools.xenlab.sources import Sources, host_sources

__all__ = ["Image", "Progress", "build", "built", "fill", "image_key"]

Progress = Callable[[str], None]

_RECIPE = 1  # part of the cache's key: raise it when code here changes what comes out
_DATA = Path(__file__).parent / "data"
_PACKAGES = (
    *("libc-bin", "bash", "dash", "coreutils", "grep", "sed", "busybox-static", "kmod", "iproute2"),
    *("util-linux", "strace", "socat", "python3", "linux-image-amd64"),
    *("xen-hypervisor-{xen}-amd64", "xen-utils-{xen}", "xen-utils-common", "xenstore-utils"),
    *("qemu-system-xen", "seabios", "ipxe-qemu"),
    *("libxendevicemodel1", "libxenforeignmemory1", "libxenevtchn1", "libxencall1"),
    *("libxengnttab1", "libxenstore4", "libxentoolcore1"),
)
_BOOT_MODULES = (
    *("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "virtio_console", "9p", "9pnet_virtio"),
    *("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs"),
)
_LATER_MODULES = ("xen-netback", "xen-blkback", "bridge", "tun", "loop")
_UNUSED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian"),
    *("usr/share/bug", "usr/share/iso-codes", "usr/share/icons", "usr/share/zsh"),
    *("var/cache", "var/lib/apt", "var/lib/dpkg", "boot"),
)
_FOLDERS = (
    *("boot", "share", "proc", "sys", "dev", "run", "tmp", "root", "usr/local", "var/cache"),
    *("var/log/xen", "var/lib/xen", "var/lib/xenstored"),
)
# The two xen-qemuuser accounts are what libxl's dm_restrict looks up; it adds the domain id to the
# range's base, so nothing else may live above it.
_PASSWD = """\
root:x:0:0:root:/root:/bin/bash
xen-qemuuser-reaper:x:990:65534::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
xen-qemuuser-range-base:x:131072:65534::/nonexistent:/usr/sbin/nologin
"""
_GROUP = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
_ROOT_SPARE_MB = 128


@dataclass(frozen=True)
class Image:
    """A built laboratory: ``folder`` holds xen, vmlinux, initrd.gz, dom0.ext4 and root/."""

    release: Release
    folder: Path

    @property
    def root(self) -> Path:
        """dom0's root folder, unpacked."""
        return self.folder / "root"


def _packages(release: Release) -> list[str]:
    return [package.format(xen=release.xen) for package in _PACKAGES]


def image_key(release: Release, sources: Sources) -> str:
    """Return the key of all that determines the image of ``release`` made from ``sources``."""
    scripts = [path for path in sorted(_DATA.iterdir()) if path.is_file()]
    agent_source = Path(agent.__file__)
    texts = [
        *(
            str(_RECIPE),
            release.xen,
            release.suite,
            release.python,
            sources.deb822,
            sources.oneline,
        ),
        *(" ".join(part) for part in (_packages(release), _BOOT_MODULES, _LATER_MODULES)),
        *(" ".join(_UNUSED), " ".join(_FOLDERS), _PASSWD, _GROUP),
        *(path.name for path in scripts),
    ]
    contents = [path.read_bytes() for path in (*scripts, agent_source)]
    return content_key([*(text.encode() for text in texts), *contents])


def _unpack(release: Release, sources: Sources, root: Path, lists: Path) -> None:
    """Unpack the packages and what they depend on into ``root``; no maintainer script is run."""
    hooks = Path("/usr/share/mmdebstrap/hooks/merged-usr")
    run_tool(
        [
            *("mmdebstrap", "--quiet", "--variant=extract", "--mode=root", "--format=directory"),
            *("--skip=check/empty", '--aptopt=Apt::Install-Recommends "false"'),
            *([f"--hook-dir={hooks}"] if hooks.is_dir() else []),
            "--include=" + ",".join(_packages(release)),
            *(release.suite, str(root), *(str(path) for path in sources.write(lists))),
        ]
    )


def _module_files(root: Path, kernel: str, modules: Iterable[str]) -> list[str]:
    """Return the files (absolute in dom0) of ``modules`` and what they need, in loading order."""
    files: dict[str, None] = {}
    for module in modules:
        shown = run_tool(
            ["chroot", str(root), "/sbin/modprobe", "--show-depends", "-S", kernel, module]
        )
        for line in shown.decode().splitlines():
            words = line.split()
            if words[:1] == ["insmod"]:
                files[words[1]] = None
    return list(files)


def _make_initrd(root: Path, files: list[str], work: Path, target: Path) -> None:
    """Make the initial RAM disk: busybox, the modules that dom0's boot needs, and its init."""
    tree = work / "initrd"
    for folder in ("bin", "dev", "proc", "sys", "root", "modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy2(root / "bin/busybox", tree / "bin/busybox")
    for file in files:
        shutil.copy2(root / file.lstrip("/"), tree / "modules")
    (tree / "modules/list").write_text("".join(Path(file).name + "\n" for file in files))
    shutil.copyfile(_DATA / "initrd-init", tree / "init")
    (tree / "init").chmod(0o755)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = run_tool(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        data="\n".join([".", *names, ""]).encode(),
        cwd=tree,
    )
    target.write_bytes(run_tool(["gzip", "-1", "-n"], data=archive))


def _trim(root: Path, kernel: str, keep: list[str]) -> None:
    """Remove what dom0 never reads, all kernel modules but ``keep`` among it."""
    modules = root / "usr/lib/modules" / kernel
    kept = {(root / file.lstrip("/")).resolve() for file in keep}
    for path in (modules / "kernel").rglob("*"):
        if path.is_file() and path.resolve() not in kept:
            path.unlink()
    run_tool(["chroot", str(root), "/sbin/depmod", kernel])
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for shim in root.glob("usr/lib/xen-*/boot/xen-shim"):
        shim.unlink()


def _configure(root: Path, release: Release) -> None:
    """Turn unpacked packages into a dom0: accounts, busybox's commands, our init and agent."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    run_tool(["chroot", str(root), "/sbin/ldconfig"])
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    for source, name in (("dom0-init", "xenlab-init"), ("dom0-network", "xenlab-network")):
        shutil.copyfile(_DATA / source, root / "usr/sbin" / name)
        (root / "usr/sbin" / name).chmod(0o755)
    applets = run_tool(["chroot", str(root), "/bin/busybox", "--list"]).decode().split()
    folders = [root / "usr/bin", root / "usr/sbin", root / "bin", root / "sbin"]
    for applet in applets:
        if not any(os.path.lexists(folder / applet) for folder in folders):
            (root / "usr/bin" / applet).symlink_to("/bin/busybox")
    home = root / "usr/lib/xenlab"
    home.mkdir()
    shutil.copyfile(agent.__file__, home / "agent.py")
    compile_python(root, release.python, home, "/usr/lib/xenlab", beside=True)
    # Debian does this in the packages' scripts, which were not run.
    for folder in (f"usr/lib/python{release.python}", "usr/lib/python3"):
        if (root / folder).is_dir():
            compile_python(root, release.python, root / folder, "/" + folder)


def fill(release: Release, target: Path, progress: Progress) -> None:
    """Carry the recipe out: fill the empty folder ``target`` with the image of ``release``.

    Needs root. Raises HostError if a tool fails; what was made by then is left to the caller.
    """
    sources = host_sources(release.suite)
    root = target / "root"
    with tempfile.TemporaryDirectory(prefix="work.", dir=target) as name:
        work = Path(name)
        _unpack(release, sources, root, work)
        progress("packages unpacked")
        kernel = next(path.name for path in (root / "usr/lib/modules").iterdir())
        xen = (root / f"boot/xen-{release.xen}-amd64.gz").read_bytes()
        (target / "xen").write_bytes(gzip.decompress(xen))
        bzimage = (root / f"boot/vmlinuz-{kernel}").read_bytes()
        (target / "vmlinux").write_bytes(extract_kernel(bzimage))
        run_tool(["chroot", str(root), "/sbin/depmod", kernel])
        boot = _module_files(root, kernel, _BOOT_MODULES)
        _make_initrd(root, boot, work, target / "initrd.gz")
        progress(f"Xen {release.xen}, Linux {kernel} and its initrd extracted")
    _trim(root, kernel, _module_files(root, kernel, (*_BOOT_MODULES, *_LATER_MODULES)))
    _configure(root, release)
    progress("dom0 configured")
    copy_tree_image(root, target / "dom0.ext4", _ROOT_SPARE_MB)
    (target / "VERSIONS").write_text(f"xen {release.xen} kernel {kernel} suite {release.suite}\n")
    progress("root disk made")


def _fill_as_root(release: Release, target: Path, progress: Progress) -> None:
    """Fill ``target`` here if this is root, else in a child process through sudo."""
    prefix = require_root()
    if not prefix:
        fill(release, target, progress)
        return
    program = [sys.executable, "-m", "tools.xenlab", release.xen, str(target)]
    path = "PYTHONPATH=" + str(Path(__file__).parents[2])
    done = subprocess.run([*prefix, "env", path, *program], stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise HostError(f"the build as root failed with status {done.returncode}")


def _entry(release: Release) -> Path:
    return cache_folder() / image_key(release, host_sources(release.suite))


def built(release: Release) -> Image | None:
    """Return the image of ``release`` if it is in the cache, without building it."""
    entry = _entry(release)
    return Image(release, entry) if entry.is_dir() else None


def build(release: Release, progress: Progress = lambda line: None) -> Image:
    """Return the image of ``release``, building it first if the cache has none.

    ``progress`` gets a line after each step. Raises ConfigError if this machine cannot build it
    and HostError if a tool fails.
    """
    present = built(release)
    if present is not None:
        return present
    require_tools()
    require_root()

    def make(work: Path) -> None:
        progress(f"building Xen {release.xen} from Debian {release.suite}")
        _fill_as_root(release, work, progress)

    return Image(release, ensure(_entry(release), make))
