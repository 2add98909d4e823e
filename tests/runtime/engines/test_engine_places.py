"""Where engines lie, and that an engine and its sidecar appear together or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.tensorrt_double import write_engine
from helpers.tiny import write_bundle
from spinescore.runtime import acceptance, cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines import places
from spinescore.runtime.engines.places import engine_file, engine_home, engine_name, engine_paths, store_engine
from spinescore.runtime.engines.sidecar import ENGINE_FOLDER, Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import file_sha256

# Stores N engines of different content at one place; ends itself before the n-th file of the last pair, if told so.
WRITER = """
import hashlib, os, sys
from dataclasses import replace
from pathlib import Path
from spinescore.runtime.engines import places, sidecar
path, count, dies_before = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
before = sidecar.Sidecar.read(Path(sys.argv[4]))
replaced, real = [], Path.replace
def replace_or_die(self, target):
    if Path(target).parent != path.parent:  # a signature's
        return real(self, target)
    replaced.append(target)
    if len(replaced) == 2 * (count - 1) + dies_before:
        os._exit(9)
    return real(self, target)
Path.replace = replace_or_die
for number in range(count):
    plan = f"{os.getpid()} {number} ".encode() * 20_000
    places.store_engine(path, plan, replace(before, engine_sha256=hashlib.sha256(plan).hexdigest()))
"""

NEVER = -1000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pair(tmp_path):
    """(an engine that is there, its sidecar)."""
    engine, _, sidecar = write_engine(tmp_path)
    return engine, sidecar


def writer(engine, *arguments, like=None):
    command = [sys.executable, "-c", WRITER, str(engine), *map(str, arguments), str(like or engine)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def fits(engine) -> bool:
    return Sidecar.read(engine).engine_sha256 == file_sha256(engine)


@pytest.mark.parametrize("dies_before", [1, 2], ids=["the engine", "its sidecar"])
@pytest.mark.parametrize("count", [1, 2], ids=["first", "replaced"])
def test_a_writer_that_is_killed_leaves_no_half_engine(pair, tmp_path, dies_before, count):
    engine = tmp_path / ENGINE_FOLDER / "there" / "localizer.fp16.engine"
    with writer(engine, count, dies_before, like=pair[0]) as process:
        process.communicate()
    assert process.returncode == 9
    assert list(engine_paths(tmp_path)) == [pair[0]]
    assert list(engine.parent.glob(".*.tmp"))
    with writer(engine, 1, NEVER, like=pair[0]) as process:  # the next one is not hindered, and cleans up
        assert process.communicate()[1] == ""
    assert engine in engine_paths(tmp_path)
    assert fits(engine)
    assert not list(engine.parent.glob(".*.tmp"))


def test_of_several_writers_at_once_one_pair_stays_whole(pair, tmp_path):
    engine = tmp_path / ENGINE_FOLDER / "there" / "localizer.fp16.engine"
    writers = [writer(engine, 12, NEVER, like=pair[0]) for _ in range(3)]
    for process in writers:
        with process:
            assert process.communicate()[1] == ""
    assert fits(engine)


def test_a_stored_engine_takes_the_place_of_what_could_not_be_built(pair):
    engine, sidecar = pair
    folder = engine.parents[2]
    places.note_failure(folder, "here", "no memory")
    assert (places.failure(folder, "here"), places.failure(folder, "there")) == ("no memory", "")
    store_engine(engine, b"plan", sidecar)
    assert places.failure(folder, "here") == ""
    assert fits(engine)


def test_names_of_engines(pair, tmp_path):
    engine, _ = pair
    name = "engines/here/localizer.fp16.engine"
    assert engine_name(tmp_path, engine) == name
    assert engine_file(tmp_path, name) == engine
    for other in ("engines/here/other.engine", "../engines/here/localizer.fp16.engine", str(engine), "engines", ""):
        assert engine_file(tmp_path, other) is None


def test_a_shipped_bundles_engines_are_in_the_cache(cache):
    shipped = Bundle.open("phantom-reference").folder
    home = engine_home(shipped)
    assert home.is_relative_to(cache)
    assert not (shipped / ENGINE_FOLDER).exists()


def test_engines_of_a_folder_that_cannot_be_written(cache, tmp_path, pair, capsys):
    folder = write_bundle(tmp_path / "b")
    assert engine_home(folder) == folder / ENGINE_FOLDER
    shutil.rmtree(folder / ENGINE_FOLDER)
    (folder / ENGINE_FOLDER).write_text("a file where the folder would be", encoding="utf-8")
    bundle, home = Bundle.open(folder), engine_home(folder)
    assert home.is_relative_to(cache)
    engine = home / "here" / "localizer.fp16.engine"
    source = folder / "localizer.fp32.onnx"
    sidecar = replace(pair[1], onnx=source.name, onnx_sha256=file_sha256(source))
    store_engine(engine, b"plan", sidecar)
    name = "engines/here/localizer.fp16.engine"
    assert (list(engine_paths(folder)), engine_name(folder, engine), engine_file(folder, name)) == (
        [engine],
        name,
        engine,
    )
    assert places.target_folder(folder, "here") == engine.parent
    assert list(acceptance.records_of(bundle)) == []
    (engine.parent / "acceptance-x.json").touch()
    assert list(acceptance.records_of(bundle)) == [engine.parent / "acceptance-x.json"]
    assert cli.main(["engine", "verify", str(folder)]) == 0
    assert f"{name}: tensorrt 10.16.1.11, " in (printed := capsys.readouterr().out)
    assert printed.endswith(f"  file and network as built  in {engine.parent}\n")
    engine.write_bytes(b"altered")
    assert cli.main(["engine", "verify", str(folder)]) == 4
    assert str(engine) in capsys.readouterr().out
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert list(engine_paths(moved)) == [engine]
    with pytest.raises(EngineError, match="altered"):
        Sidecar.read(engine).check_files(engine, moved / source.name)


def test_the_cached_engines_of_a_target_take_the_place_of_the_bundles_own(cache, tmp_path, monkeypatch):
    folder = write_bundle(tmp_path / "b")
    own, _, sidecar = write_engine(folder)
    sidecar.write(own.with_name("grader.fp16.engine"))
    sidecar.write(folder / ENGINE_FOLDER / "other" / "localizer.fp16.engine")
    monkeypatch.setattr(places, "is_shipped", lambda folder: True)
    mine = engine_home(folder) / "here" / own.name
    store_engine(mine, b"mine", sidecar)
    assert list(engine_paths(folder)) == [mine, folder / ENGINE_FOLDER / "other" / own.name]


def test_a_lock_that_its_process_left_is_free(tmp_path):
    path = tmp_path / "folder" / "lock"
    code = "import os, sys; from pathlib import Path; from spinescore.runtime.engines.places import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n    os._exit(1)"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            holder.stdin.close()
            assert waiting.stdout.read() == "held\n"
    with places.locked(path):
        assert path.is_file()
