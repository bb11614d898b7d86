from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import ConfigError
from tools.xenlab.image import Image
from tools.xenlab.release import RELEASES
from tools.xenlab.wheel import install_wheels


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(RELEASES["4.17"], tmp_path / "image")


def test_no_wheel_needs_no_disk(image: Image) -> None:
    assert install_wheels(image, []) is None


@pytest.mark.parametrize(
    "name", ["thing.txt", "thing-1.0.tar.gz", "thing-1.0-cp311-cp311-linux_x86_64.whl", ".whl"]
)
def test_only_pure_python_wheels_are_taken(image: Image, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="pure Python"):
        install_wheels(image, [tmp_path / name])


def test_a_missing_wheel_is_a_config_error(image: Image, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        install_wheels(image, [tmp_path / "thing-1.0-py3-none-any.whl"])


def test_a_file_that_is_no_archive_is_a_config_error_and_leaves_nothing(
    image: Image, tmp_path: Path
) -> None:
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not a zip file")
    with pytest.raises(ConfigError, match="cannot install"):
        install_wheels(image, [wheel])
    assert not [path for path in (tmp_path / "wheels").iterdir() if path.is_dir()]
