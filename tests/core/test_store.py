"""Files: whole or as they were, with the permissions of any new file, in folders that are synced."""

import os
import stat

import pytest

from advfeat.core import store


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the operating system, in order: "file" and "folder" synced, "renamed"."""
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("renamed") or replace(*paths))
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is the whole process's"))
    return done


@pytest.mark.skipif(os.name != "posix", reason="Windows syncs folders by itself")
def test_a_file_and_its_folder_are_synced(tmp_path, calls):
    store.save_json(tmp_path / "a.json", {"format": store.FORMAT})
    assert calls == ["file", "renamed", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="no permissions to speak of")
def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    store.write(tmp_path / "ours", lambda file: file.write(b"x"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_fails_is_as_it_was(tmp_path):
    store.write(tmp_path / "a", lambda file: file.write("before"), "w")

    def fail(file):
        file.write("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(tmp_path / "a", fail, "w")
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
