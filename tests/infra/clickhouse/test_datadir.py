from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from infra.clickhouse.datadir import LAYOUT, is_locked, own_data_directory, read_stamp
from schemas.errors_embedded import (
    DataDirectoryDamaged,
    DataDirectoryInUse,
    DataDirectoryNewer,
    DataDirectoryOfOtherChain,
    DataDirectoryUnwritable,
    NotADataDirectory,
)


def test_it_is_made_locked_and_given_up(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data"
    assert not is_locked(path)
    directory = own_data_directory(path, "base", 8453)
    assert is_locked(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert len(directory.password("headrace")) >= 24
    assert directory.password("headrace") != directory.password("analyst")
    password = directory.password("headrace")
    directory.release()
    assert not is_locked(path)
    again = own_data_directory(path)
    assert again.password("headrace") == password
    assert read_stamp(path) == {"layout": LAYOUT, "chain": "base", "chain_id": 8453}
    again.release()


def test_the_chain_is_stamped_when_it_is_known_and_checked_after(tmp_path: Path) -> None:
    own_data_directory(tmp_path).release()
    own_data_directory(tmp_path, "local").release()
    own_data_directory(tmp_path, "local", 1337).release()
    for chain, chain_id in (("base", None), ("base", 1337), ("local", 1), (None, 5)):
        with pytest.raises(DataDirectoryOfOtherChain) as caught:
            own_data_directory(tmp_path, chain, chain_id)
        assert "local" in caught.value.what_text
        assert not is_locked(tmp_path)
    own_data_directory(tmp_path, "local", 1337).release()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(NotADataDirectory):
        own_data_directory(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    own_data_directory(tmp_path).release()
    (tmp_path / "headrace.json").write_text(json.dumps({"layout": LAYOUT + 1}))
    with pytest.raises(DataDirectoryNewer):
        own_data_directory(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"chain": "base"}', '{"layout": "1"}', "\0\0"])
def test_a_damaged_stamp_is_refused(text: str, tmp_path: Path) -> None:
    own_data_directory(tmp_path).release()
    (tmp_path / "headrace.json").write_text(text)
    with pytest.raises(DataDirectoryDamaged):
        own_data_directory(tmp_path)


def test_missing_parts_are_damage(tmp_path: Path) -> None:
    own_data_directory(tmp_path).release()
    (tmp_path / "clickhouse").rmdir()
    with pytest.raises(DataDirectoryDamaged, match="clickhouse"):
        own_data_directory(tmp_path)
    (tmp_path / "clickhouse").mkdir()
    (tmp_path / "clickhouse" / "store").mkdir()
    (tmp_path / "headrace.json").unlink()
    with pytest.raises(DataDirectoryDamaged, match=r"headrace\.json"):
        own_data_directory(tmp_path)


def test_a_first_start_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    own_data_directory(tmp_path).release()
    (tmp_path / "headrace.json").unlink()
    own_data_directory(tmp_path).release()
    assert read_stamp(tmp_path)["layout"] == LAYOUT


def test_a_living_owner_is_named_at_once(tmp_path: Path) -> None:
    owner = own_data_directory(tmp_path)
    with pytest.raises(DataDirectoryInUse) as caught:
        own_data_directory(tmp_path, lock_wait_seconds=60)
    assert f"process {os.getpid()}" in caught.value.what_text
    owner.release()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryUnwritable):
        own_data_directory(tmp_path / "file")
    with pytest.raises(DataDirectoryUnwritable):
        own_data_directory(Path("/proc/headrace"))


def test_a_mounted_disk_with_its_lost_and_found_is_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()

    own_data_directory(tmp_path).release()

    assert (tmp_path / "lost+found").is_dir()
