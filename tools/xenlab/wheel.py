"""How a wheel becomes a /usr/local for dom0: installed, byte-compiled, on a disk of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

from dm.errors import ConfigError, HostError
from tools.xenlab.cache import content_key, ensure, prune
from tools.xenlab.image import Image, Progress
from tools.xenlab.process import compile_python, copy_tree_image

__all__ = ["install_wheels"]

_RECIPE = 1  # part of the cache's key: raise it when code here changes what comes out
_KEPT = 8
_SPARE_MB = 16
_DISK = "local.ext4"
_NAME = re.compile(r"[\w.!+]+(-[\w.!+]+){1,2}-(py2\.)?py3-none-any\.whl")


def _check(wheel: Path) -> bytes:
    """Return the digest of ``wheel``; raise ConfigError if it cannot be one for dom0."""
    if not _NAME.fullmatch(wheel.name):
        raise ConfigError(f"{wheel}: not the name of a pure Python 3 wheel (…-py3-none-any.whl)")
    try:
        with wheel.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ConfigError(f"cannot read {wheel}: {error.strerror}") from None


def _unpack(wheel: Path, python: str, tree: Path) -> None:
    """Install ``wheel`` below ``tree`` as Debian's own Python would install it in /usr/local."""
    try:
        from installer import install
        from installer.destinations import SchemeDictionaryDestination
        from installer.exceptions import InstallerError
        from installer.sources import WheelFile
    except ImportError:
        raise ConfigError(
            "--install needs the Python library installer (pip install 'ioreqd[dev]')"
        ) from None
    packages = f"/usr/local/lib/python{python}/dist-packages"
    scheme = {
        "purelib": packages,
        "platlib": packages,
        "headers": f"/usr/local/include/python{python}",
        "scripts": "/usr/local/bin",
        "data": "/usr/local",
    }
    destination = SchemeDictionaryDestination(
        scheme_dict=scheme,
        interpreter="/usr/bin/python3",
        script_kind="posix",
        destdir=str(tree),
    )
    try:
        with WheelFile.open(wheel) as source:
            install(source, destination, {"INSTALLER": b"installer\n"})
    except (InstallerError, BadZipFile, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot install {wheel}: {error}") from error


def install_wheels(
    image: Image, wheels: Sequence[Path], progress: Progress = lambda line: None
) -> Path | None:
    """Return a disk that is dom0's /usr/local with ``wheels`` installed, None if there are none.

    The disk is cached by the wheels' contents and the image's key. Raises ConfigError for a file
    that is no pure Python wheel.
    """
    if not wheels:
        return None
    python = image.release.python
    parts = [str(_RECIPE).encode(), image.folder.name.encode(), python.encode()]
    key = content_key([*parts, *(_check(wheel) for wheel in wheels)])

    def make(work: Path) -> None:
        tree = work / "tree"
        for wheel in wheels:
            _unpack(wheel, python, tree)
        local = tree / "usr/local"
        if not local.is_dir():
            raise HostError("the wheels hold no file")
        compile_python(image.root, python, local, "/usr/local")
        copy_tree_image(local, work / _DISK, _SPARE_MB)
        shutil.rmtree(tree)
        progress("installed for dom0: " + ", ".join(wheel.name for wheel in wheels))

    folder = image.folder.parent / "wheels"
    entry = ensure(folder / key, make)
    os.utime(entry)
    prune(folder, _KEPT)
    return entry / _DISK
