from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dm.errors import HostError
from tools.xenlab import agent, cache, image
from tools.xenlab.release import RELEASES, Release
from tools.xenlab.sources import Sources

SOURCES = Sources("Types: deb\n", "deb http://x/ bookworm main\n")


def test_the_key_depends_on_where_parts_end() -> None:
    assert cache.content_key([b"ab", b"c"]) != cache.content_key([b"a", b"bc"])
    assert cache.content_key([b"ab", b"c"]) == cache.content_key([b"ab", b"c"])


def test_the_image_key_is_stable_and_differs_by_release_and_sources() -> None:
    old, new = RELEASES.values()
    keys = [
        image.image_key(old, SOURCES),
        image.image_key(new, SOURCES),
        image.image_key(old, Sources("", SOURCES.oneline)),
        image.image_key(old, Sources(SOURCES.deb822, "")),
        image.image_key(Release(old.xen, old.suite, "3.12"), SOURCES),
    ]
    assert len(set(keys)) == len(keys)
    assert image.image_key(old, SOURCES) == keys[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_RECIPE", -1),
        ("_PACKAGES", ("bash",)),
        ("_BOOT_MODULES", ("ext4",)),
        ("_LATER_MODULES", ("tun",)),
        ("_UNUSED", ()),
        ("_FOLDERS", ()),
        ("_PASSWD", ""),
        ("_GROUP", ""),
    ],
)
def test_the_image_key_changes_with_the_recipe(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    before = image.image_key(RELEASES["4.17"], SOURCES)
    monkeypatch.setattr(image, name, value)
    assert image.image_key(RELEASES["4.17"], SOURCES) != before


def test_the_image_key_changes_with_a_script_and_with_the_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for script in image._DATA.iterdir():
        if script.is_file():
            (tmp_path / script.name).write_bytes(script.read_bytes())
    before = image.image_key(RELEASES["4.17"], SOURCES)
    monkeypatch.setattr(image, "_DATA", tmp_path)
    assert image.image_key(RELEASES["4.17"], SOURCES) == before
    (tmp_path / "dom0-init").write_bytes(b"#!/bin/sh\n")
    changed = image.image_key(RELEASES["4.17"], SOURCES)
    assert changed != before
    (tmp_path / "agent.py").write_bytes(b"")
    monkeypatch.setattr(agent, "__file__", str(tmp_path / "agent.py"))
    assert image.image_key(RELEASES["4.17"], SOURCES) not in (before, changed)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("IOREQD_LAB_CACHE", raising=False)
    assert cache.cache_folder() == Path("/x/ioreqd/lab")
    monkeypatch.setenv("IOREQD_LAB_CACHE", "/y")
    assert cache.cache_folder() == Path("/y")


def test_an_entry_is_made_once_and_then_found(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(work: Path) -> None:
        made.append(work)
        (work / "file").write_text("content")

    for _ in range(2):
        entry = cache.ensure(tmp_path / "deep" / "key", make)
        assert (entry / "file").read_text() == "content"
    assert len(made) == 1
    assert [path.name for path in entry.parent.iterdir() if path.is_dir()] == ["key"]


def test_a_failed_build_leaves_no_entry(tmp_path: Path) -> None:
    def make(work: Path) -> None:
        (work / "half").write_text("")
        raise HostError("a tool failed")

    with pytest.raises(HostError, match="a tool failed"):
        cache.ensure(tmp_path / "key", make)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "key.new.abc").mkdir()
    cache.ensure(tmp_path / "key", lambda work: None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["key"]


def test_a_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def slow(work: Path) -> None:
        inside.set()
        assert go_on.wait(60)
        made.append(1)

    first = threading.Thread(target=cache.ensure, args=(tmp_path / "key", slow))
    first.start()
    assert inside.wait(60)
    second = threading.Thread(
        target=cache.ensure, args=(tmp_path / "key", lambda work: made.append(2))
    )
    second.start()
    go_on.set()
    first.join(60)
    second.join(60)
    assert made == [1]


def test_only_the_youngest_entries_are_kept(tmp_path: Path) -> None:
    for age in range(5):
        (tmp_path / str(age)).mkdir()
        os.utime(tmp_path / str(age), (1000 - age, 1000 - age))
    cache.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
