"""A folder is replaced as a whole or not at all."""

from __future__ import annotations

import sys

import pytest

from spinescore.export.folder import check_target, replaced_folder, write_synced
from spinescore.runtime.errors import BundleError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "bundle"
    with replaced_folder(target) as draft:
        write_synced(draft / "golden" / "a.npz", b"1")
        assert not target.exists()
    assert (target / "golden" / "a.npz").read_bytes() == b"1"
    assert names(target.parent) == ["bundle"]


def test_old_bundle_is_replaced_and_its_files_are_gone(tmp_path):
    target = tmp_path / "bundle"
    for name in ("old", "new"):
        with replaced_folder(target) as draft:
            write_synced(draft / "bundle.json", name.encode())
            write_synced(draft / f"{name}.onnx", b"")
    assert names(target) == ["bundle.json", "new.onnx"]
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, BundleError])
def test_interruption_leaves_the_old_bundle_and_nothing_else(tmp_path, fault):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "bundle.json").write_text("old")

    def export():
        with replaced_folder(target) as draft:
            write_synced(draft / "bundle.json", b"half of the new one")
            raise fault

    with pytest.raises(fault):
        export()
    assert (target / "bundle.json").read_text() == "old"
    assert names(tmp_path) == ["bundle"]


def test_failed_exchange_restores_the_old_bundle(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "bundle.json").write_text("old")
    rename = type(target).rename

    def refusing(path, to):
        if path.name.endswith(".part"):
            raise OSError("in use")
        return rename(path, to)

    monkeypatch.setattr(type(target), "rename", refusing)
    with pytest.raises(OSError, match="in use"), replaced_folder(target) as draft:
        write_synced(draft / "bundle.json", b"new")
    assert (target / "bundle.json").read_text() == "old"
    assert names(tmp_path) == ["bundle"]


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(BundleError, match="holds no bundle"):
        check_target(tmp_path)
    with pytest.raises(BundleError, match="is no folder"):
        check_target(tmp_path / "thesis.docx")


def test_empty_folder_is_taken(tmp_path):
    with replaced_folder(tmp_path / "empty") as draft:
        write_synced(draft / "bundle.json", b"{}")
    (tmp_path / "other").mkdir()
    check_target(tmp_path / "other")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot lock folders")
def test_the_draft_of_a_killed_export_is_removed_and_that_of_a_running_one_is_not(tmp_path):
    target = tmp_path / "bundle [1]"
    killed, other = tmp_path / f".{target.name}.abc.part", tmp_path / ".another.abc.part"
    for folder in (killed, other):
        folder.mkdir()
        (folder / "weights").write_bytes(b"1")
    with replaced_folder(target) as running:
        assert not killed.exists()
        with replaced_folder(target) as draft:
            assert running.exists()
            (draft / "bundle.json").write_text("{}", encoding="utf-8")
        (running / "bundle.json").write_text("{}", encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, target.name]
