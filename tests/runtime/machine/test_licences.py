"""`doctor --licences`: every package that spinescore or one of its extras needs, with the licence that it states."""

from __future__ import annotations

import json

import pytest

from spinescore.runtime import cli
from spinescore.runtime.machine.licences import NOT_STATED, find_licences, licences_text


def install(folder, name, *lines, files=()):
    """A package's metadata as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    for file in files:
        (info / file).parent.mkdir(parents=True, exist_ok=True)
        (info / file).write_text("the text")
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""]))
    (info / "RECORD").write_text("".join(f"{info.name}/{file},,\n" for file in ("METADATA", *files)))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["Requires-Dist: xx-one>=1", 'Requires-Dist: xx_two[fast]>=1; extra == "more"', "Provides-Extra: more"]
    own += ['Requires-Dist: xx-absent; sys_platform == "plan9"', 'Requires-Dist: xx-own[more]; extra == "all"']
    install(tmp_path, "xx-own", *own, "Provides-Extra: all", "License-Expression: Apache-2.0")
    install(tmp_path, "xx-one", "License: OSI Approved :: MIT", "Requires-Dist: XX.Three", files=["LICENSE.txt"])
    install(tmp_path, "xx-two", "License: Permission is hereby granted", "  in many lines", *TWO)
    install(tmp_path, "xx-three", "License: UNKNOWN")
    install(tmp_path, "xx-four", "License-Expression: MPL-2.0 AND MIT", "License: MPL", "License-File: COPYING")
    install(tmp_path, "xx-five", "License: MIT")  # needed by an extra of xx-two that nobody asks for
    install(tmp_path, "xx-stranger", "License: MIT")
    return tmp_path


TWO = (
    "Classifier: License :: OSI Approved :: BSD License",
    "Classifier: Topic :: Education",
    "Provides-Extra: fast",
    'Requires-Dist: xx-four; extra == "fast"',
    'Requires-Dist: xx-five; extra == "slow"',
)


def test_what_is_needed_is_found_with_the_licence_that_it_states(packages):
    found = {licence.name: licence for licence in find_licences("xx-own")}
    assert {name: licence.licence for name, licence in found.items()} == {
        "xx-own": "Apache-2.0",
        "xx-one": "MIT",
        "xx-two": "BSD License",
        "xx-three": NOT_STATED,
        "xx-four": "MPL-2.0 AND MIT",
    }
    assert list(found) == sorted(found)
    assert found["xx-one"].files == (str(packages / "xx_one-1.0.dist-info" / "LICENSE.txt"),)
    assert found["xx-three"].files == ()


def test_a_line_for_each(packages):
    lines = licences_text(find_licences("xx-own")).splitlines()
    assert len(lines) == 5
    (three,) = [line for line in lines if line.startswith("xx-three")]
    assert three.endswith("no file")
    assert "1.0" in three


def test_the_command(capsys):
    assert cli.main(["doctor", "--licences", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "spinescore.licences/1"
    found = {licence["name"]: licence for licence in document["licences"]}
    assert {"numpy", "onnxruntime", "pydicom", "spinescore"} <= set(found)
    assert found["spinescore"]["licence"] == "Apache-2.0"
    assert all(licence["version"] and licence["licence"] for licence in found.values())
    assert cli.main(["doctor", "--licences"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found)


def test_bundles_have_no_licences_to_list(capsys):
    assert cli.main(["doctor", "phantom-reference", "--licences"]) == 2
    assert "leave out phantom-reference" in capsys.readouterr().err
