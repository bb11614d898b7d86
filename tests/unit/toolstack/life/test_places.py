"""The run directory: domids, names, leftovers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.toolstack.errors import ToolstackError
from tools.toolstack.life.places import LARGEST_DOMID, Places, check_name, default_folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "run")
    places.open()
    return places


def test_a_domid_is_not_given_again_before_the_others_were(places: Places) -> None:
    domids = []
    for number in range(3):
        place, alive = places.claim(f"guest{number}")
        domids.append(place.domid)
        places.release(place, alive)
    assert domids == [1, 2, 3]


def test_after_the_last_domid_comes_the_first_free_one(places: Places) -> None:
    first, _ = places.claim("first")
    (places.folder / "lock").write_text(f"{LARGEST_DOMID}\n")
    second, _ = places.claim("second")
    assert (first.domid, second.domid) == (1, 2)


def test_processes_that_claim_at_one_time_get_different_domids(places: Places) -> None:
    program = (
        "import sys, pathlib; from tools.toolstack.life.places import Places; "
        "places = Places(pathlib.Path(sys.argv[1])); "
        "print([places.claim(sys.argv[2] + str(n))[0].domid for n in range(20)])"
    )
    root = Path(__file__).parents[4]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(places.folder), letter],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        for letter in "abc"
    ]
    found = [number for one in running for number in json.loads(one.communicate()[0])]
    assert len(set(found)) == 60


def test_a_name_is_one_living_domains(places: Places) -> None:
    place, alive = places.claim("name")
    with pytest.raises(ToolstackError, match="named name already"):
        places.claim("name")
    places.release(place, alive)
    assert places.claim("name")[0].domid == 2


@pytest.mark.parametrize("name", ["", "a/b", "..", "7", "-x", "a\n", "x" * 65, "\x1b[2J"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ToolstackError):
        check_name(name)


def test_the_leftovers_of_a_dead_keeper_are_removed(places: Places) -> None:
    place, alive = places.claim("dead")
    place.file("something").write_text("left")
    assert [one.domid for one in places.all()] == [1]
    os.close(alive)  # as the kernel does when the keeper dies
    assert places.all() == []
    assert not place.folder.exists()


def test_a_folder_that_was_never_finished_is_a_leftover(places: Places) -> None:
    (places.folder / "5").mkdir()
    assert places.all() == []
    assert not (places.folder / "5").exists()


def test_a_domain_is_found_by_name_and_by_domid(places: Places) -> None:
    place, _ = places.claim("found")
    assert places.find("found").domid == places.find("1").domid == place.domid
    with pytest.raises(ToolstackError, match="no domain 'lost'"):
        places.find("lost")


def test_a_renamed_domain_leaves_its_name_free(places: Places) -> None:
    place, _ = places.claim("name")
    places.rename(place, "other")
    second, _ = places.claim("name")
    assert (places.find("other").domid, places.find("name").domid) == (1, second.domid)
    with pytest.raises(ToolstackError):
        places.rename(place, "name")


def test_the_folder_must_be_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(ToolstackError, match="0700"):
        Places(tmp_path).open()


def test_the_folder_may_be_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ToolstackError, match="not a directory"):
        Places(tmp_path / "link").open()


def test_the_folder_s_path_leaves_room_for_sockets(tmp_path: Path) -> None:
    with pytest.raises(ToolstackError, match="84 bytes"):
        Places(tmp_path / ("x" * 84)).open()


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_folder() == Path("/run/user/7/ioreqd")
    for wrong in ("", "relative", "/" + "x" * 200):
        monkeypatch.setenv("XDG_RUNTIME_DIR", wrong)
        assert default_folder() == Path(f"/tmp/ioreqd-{os.getuid()}")
