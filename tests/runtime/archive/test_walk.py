"""The files of an archive in a fixed order, from any file on."""

import os
from pathlib import Path

import pytest

from spinescore.runtime.archive.walk import FolderTree, PathList, open_source

NAMES = ["a.dcm", "a/1.dcm", "a/b/2.dcm", "a/b/3.dcm", "a/c.dcm", "b.dcm", "z/DICOMDIR", "z/.hidden", "z/é.dcm", "z/Z"]
SEEN = ["a/1.dcm", "a/b/2.dcm", "a/b/3.dcm", "a/c.dcm", "a.dcm", "b.dcm", "z/Z", "z/é.dcm"]


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in NAMES:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "tree"


def test_a_folder_is_walked_in_the_order_of_places(tree):
    found = list(FolderTree(tree).files())
    assert sorted(path for _, path in found) == sorted(SEEN)
    assert [place for place, _ in found] == sorted(place for place, _ in found)


def test_a_walk_begins_after_any_file(tree):
    found = list(FolderTree(tree).files())
    for number, (place, _) in enumerate(found):
        assert list(FolderTree(tree).files(place)) == found[number + 1 :]


def test_a_walk_goes_on_although_files_came_and_went(tree):
    found = [path for _, path in FolderTree(tree).files()]
    place = ("a", "b", "2.dcm")
    (tree / "a" / "b" / "2.dcm").unlink()
    (tree / "a" / "b" / "25.dcm").write_text("new")
    rest = [path for _, path in FolderTree(tree).files(place)]
    assert rest == sorted([*found[found.index("a/b/2.dcm") + 1 :], "a/b/25.dcm"], key=lambda path: path.split("/"))


def test_the_tables_within_the_tree_are_left_out(tree):
    paths = [path for _, path in open_source("folder", tree, tree / "a" / "b").files()]
    assert paths == [path for _, path in FolderTree(tree).files() if not path.startswith("a/b/")]


def test_links_to_folders_are_left_out_and_links_to_files_are_read(tree):
    (tree / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "link.dcm").symlink_to(tree / "b.dcm")
    paths = [path for _, path in FolderTree(tree).files()]
    assert not [path for path in paths if path.startswith("loop")]
    assert "link.dcm" in paths


def test_a_folder_that_cannot_be_listed_is_yielded_for_its_reader(tree, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list(FolderTree(tree).files())
    assert "a/b" in [path for _, path in found]
    assert list(FolderTree(tree).files(("a", "b"))) == found[[path for _, path in found].index("a/b") + 1 :]


def test_a_list_names_files_and_folders(tree, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"tree/b.dcm\n\n{tree}/a/c.dcm\r\ntree/a/b/\nnot-there.dcm\n".encode() + b"\xff.dcm")
    source = PathList(listed)
    found = list(source.files())
    paths = [path for _, path in found]
    assert paths == ["tree/b.dcm", f"{tree}/a/c.dcm", "tree/a/b/2.dcm", "tree/a/b/3.dcm", "not-there.dcm", "\udcff.dcm"]
    assert [place[0] for place, _ in found] == [1, 3, 4, 4, 5, 6]
    for number, (place, _) in enumerate(found):
        assert list(source.files(place)) == found[number + 1 :]
    assert (source.base / paths[1]).read_text() == "a/c.dcm"
