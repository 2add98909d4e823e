"""The inputs of reading as single files: paths, folders, DICOMDIR, archives, bytes, streams and datasets.

Nothing is unpacked to disk, and no name in an archive or an index can lead out of it.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading import archives
from spinescore.runtime.reading.datasets import is_dataset, name_of, pixel_stream
from spinescore.runtime.reading.dicomfile import open_file
from spinescore.runtime.study import REGIONS
from spinescore.runtime.text import brief
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["MAX_BYTES_IN_MEMORY", "FileInput", "Item", "is_own", "items"]

FileInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Dataset"

MAX_BYTES_IN_MEMORY = 512 << 20  # read from a stream
_HEAD_BYTES, _TAIL_BYTES = 1024, 1 << 16
_DICOMDIR = b"1.2.840.10008.1.3.10"  # Media Storage Directory Storage, in the file meta information
_MAX_DICOMDIR_BYTES, _MAX_RECORDS = 4 << 20, 10_000  # pydicom takes about 100 microseconds for a record
_REGION = f"({'|'.join(REGIONS)})"
_OWN = re.compile(  # names of files that this package writes
    rf"truth\.json|report\.(json|html)|row\.csv|overlay-{_REGION}\.png|sr\.dcm|(gsps|sc)-{_REGION}\.dcm"
    r"|index\.csv|study-[0-9a-f]{12}(-[0-9]+)?_[^/]*\.png"  # crops
    r"|comparison\.(json|png|svg|pdf)"  # compare
    r"|(studies|units|corners|changes|(unit|corner)_changes|patients|repeats|left_out)\.(csv|parquet)"  # cohort
    r"|(columns|patient_keys)\.csv|change\.(png|svg|pdf)"
    r"|(evaluate|association)\.(json|md)|(confusion|roc|bland-altman|sites|forest)\.(png|svg|pdf)"  # and associate
)
_MAX_NAMED = 8  # the most files that one message names
_RECORDS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # an item's tag, in both byte orders


@dataclass(frozen=True)
class Item:
    """One file. `open` raises InputRejected or OSError. `in_folder` is false if the caller named the file itself."""

    source: str
    in_folder: bool
    open: Callable[[], BinaryIO] = field(compare=False)
    key: str = ""  # identifies the file: of several items with one key only one is read
    dataset: Dataset | None = field(default=None, compare=False, repr=False)  # has the header; `open` gives the pixels


def is_own(source: str) -> bool:
    """Return whether a file in a folder or archive is named like a result of this package."""
    return _OWN.fullmatch(source.rpartition("/")[2]) is not None


def items(inputs: Iterable[FileInput], opened: ExitStack) -> list[Item]:
    """Return all files of the inputs, each once. Archives stay open until `opened` is closed.

    A file that cannot be opened is an item as well; its `open` raises the reason.
    """
    by_key: dict[str, Item] = {}
    for item in (item for given in inputs for item in _items(given, opened)):
        if item.key not in by_key or not item.in_folder:  # a file that the caller named takes precedence
            by_key[item.key] = item
    return list(by_key.values())


def _items(given: FileInput, opened: ExitStack) -> Iterator[Item]:
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        yield from _in_folder(path) if os.path.isdir(path) else _named(path, opened)  # noqa: PTH112  # never raises
    elif is_dataset(given):
        yield _dataset(given)
    else:
        yield from _in_memory(given, opened)


def _file(path: Path, source: str, in_folder: bool) -> Item:
    return Item(source, in_folder, lambda: open_file(path, source), os.path.realpath(path))


def _in_folder(path: Path) -> Iterator[Item]:
    """Yield all files of a folder in a fixed order, without index files and hidden ones.

    Links to folders are not followed: the walk reaches a folder within this one anyway. A link that leads out of the
    folder becomes a refused item.
    """
    root = Path(os.path.realpath(path))
    closed: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders.sort()
        for link in (Path(folder, name) for name in folders):
            if link.is_symlink() and not Path(os.path.realpath(link)).is_relative_to(root):
                source = link.relative_to(path).as_posix()
                message = f"{source} is a link to a folder outside the given one; give that folder to read it"
                yield _refused(Item(source, True, io.BytesIO, str(link)), InputRejected("not-dicom", message))
        for file in (Path(folder, name) for name in sorted(names)):
            if file.name.upper() != "DICOMDIR" and not file.name.startswith("."):
                yield _file(file, file.relative_to(path).as_posix(), in_folder=True)
    for error in closed:
        subfolder = Path(error.filename)
        source = path.name if subfolder == path else subfolder.relative_to(path).as_posix()
        message = f"the folder {source} cannot be read ({error.strerror}); let this user read it"
        yield _refused(Item(source, True, io.BytesIO, str(subfolder)), InputRejected("not-dicom", message))


def _named(path: Path, opened: ExitStack) -> Iterator[Item]:
    """Yield the file itself, or the files that it holds (archive) or refers to (DICOMDIR)."""
    item = _file(path, path.name, in_folder=False)
    try:
        with item.open() as file:
            head = file.read(_HEAD_BYTES)
        if archives.is_archive(head):
            yield from _members(opened.enter_context(open_file(path, item.source)), item, opened)
        elif _DICOMDIR in head:
            yield from _referenced(path)
        else:
            yield item
    except (InputRejected, OSError) as fault:
        yield _refused(item, fault)


def _dataset(ds: Dataset) -> Item:
    with caught_warnings():
        source = name_of(ds)
    return Item(source, False, lambda: pixel_stream(ds), f"memory:{source}:{id(ds)}", ds)


def _in_memory(given: bytes | bytearray | memoryview | BinaryIO, opened: ExitStack) -> Iterator[Item]:
    """Yield the file in a bytes object, or in a binary stream, which is read from its position to its end."""
    name: object = None
    if isinstance(given, (bytes, bytearray, memoryview)):
        data = bytes(given)
    elif callable(getattr(given, "read", None)):
        data, name = given.read(MAX_BYTES_IN_MEMORY + 1), getattr(given, "name", None)
    else:
        raise TypeError(
            f"a radiograph is read from a path, bytes or a binary stream, got {type(given).__name__}; or give a "
            "pydicom Dataset, and pixels in an array to radiograph_from_array"
        )
    if not isinstance(data, bytes):
        raise TypeError(f"a radiograph is read from a binary stream, got one that gives {type(data).__name__}")
    # neither name nor key may depend on the order of the inputs
    source = Path(name).name if isinstance(name, str) and name else f"{len(data)} bytes in memory"
    item = Item(source, False, lambda: io.BytesIO(data), f"memory:{zlib.crc32(data[-_TAIL_BYTES:])}:{id(given)}")
    if len(data) > MAX_BYTES_IN_MEMORY:
        message = f"{source} is larger than {MAX_BYTES_IN_MEMORY} bytes; give the path of the file"
        yield _refused(item, InputRejected("too-large", message))
    elif archives.is_archive(data):
        yield from _members(io.BytesIO(data), item, opened)
    elif _DICOMDIR in data[:_HEAD_BYTES]:
        message = f"{source} is a DICOMDIR, which refers to files beside it; give its path"
        yield _refused(item, InputRejected("not-dicom", message))
    else:
        yield item


def _members(file: BinaryIO, item: Item, opened: ExitStack) -> Iterator[Item]:
    try:
        for name, read in archives.members(file, item.source, opened):
            yield Item(f"{item.source}/{name}", True, read, f"{item.key}\0{name}")
    except InputRejected as fault:
        yield _refused(item, fault)


def _refused(item: Item, fault: InputRejected | OSError) -> Item:
    def refuse() -> BinaryIO:
        raise fault

    return Item(item.source, item.in_folder, refuse, item.key)


def _referenced(path: Path) -> Iterator[Item]:
    """Yield the images that a DICOMDIR refers to (PS3.3 F.3.2.2), by paths below its own folder (PS3.10 8.5)."""
    from pydicom import dcmread

    source = path.name
    with open_file(path, source) as file:
        data = file.read(_MAX_DICOMDIR_BYTES + 1)
    if len(data) > _MAX_DICOMDIR_BYTES or max(map(data.count, _RECORDS)) > _MAX_RECORDS:
        limits = f"{_MAX_DICOMDIR_BYTES >> 20} MB or {_MAX_RECORDS} records"
        raise InputRejected("too-large", f"{source} is a DICOMDIR of more than {limits}; give the folder instead")
    try:
        with caught_warnings():
            records = dcmread(io.BytesIO(data)).DirectoryRecordSequence
            names = [_components(record) for record in records if record.get("DirectoryRecordType") == "IMAGE"]
    except Exception as fault:
        message = f"{source} is a DICOMDIR that cannot be read ({brief(fault)}); give the folder instead"
        raise InputRejected("not-dicom", message) from None
    if not names:
        raise InputRejected("no-pixels", f"{source} is a DICOMDIR that refers to no image; give the folder instead")
    listings: dict[Path, dict[str, str]] = {}
    absent: list[str] = []
    for components in names:
        if any(not part.strip(". ") or set(part) & set("/\\:\0") for part in components):
            raise InputRejected("not-dicom", f"{source} refers to files outside of its folder; give the files instead")
        place, name = _on_disk(path.parent, components, listings), "/".join(components)
        if os.path.exists(place):  # noqa: PTH110  # never raises
            yield _file(place, name, in_folder=True)
        else:
            absent.append(name)
    if absent:
        yield _refused(_file(path, source, in_folder=False), _not_there(source, absent, len(names)))


def _not_there(source: str, absent: list[str], count: int) -> InputRejected:
    listed = ", ".join(absent[:_MAX_NAMED])
    more = f" and {len(absent) - _MAX_NAMED} more" if len(absent) > _MAX_NAMED else ""
    return InputRejected(
        "missing-file",
        f"{source} refers to {count} images, and {len(absent)} of them are not there: {listed}{more}; copy the whole "
        "medium again, or give the folder that holds the images",
    )


def _components(record: Any) -> list[str]:
    """Return the components of the path that a record states."""
    path = record.get("ReferencedFileID")
    return [str(part) for part in ([path] if isinstance(path, str) else path or ())] or [""]


def _on_disk(folder: Path, components: list[str], listings: dict[Path, dict[str, str]]) -> Path:
    """Return the path of a referenced file, in any case: media are often copied with lower-case names.

    `listings` keeps the content of each folder, so that it is listed once.
    """
    for part in components:
        if not (folder / part).exists() and folder.is_dir():
            if folder not in listings:
                listings[folder] = {path.name.upper(): path.name for path in sorted(folder.iterdir(), reverse=True)}
            part = listings[folder].get(part.upper(), part)
        folder = folder / part
    return folder
