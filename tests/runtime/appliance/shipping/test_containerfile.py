"""The Containerfile of a release."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import spinescore.runtime.appliance.shipping as shipping
from spinescore.runtime.verbs.status import _lines

FILE = Path(shipping.__file__).with_name("Containerfile")
TEXT = re.sub(r"\\\n\s*", "", FILE.read_text(encoding="utf-8"))
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
FINAL = LINES[max(number for number, line in enumerate(LINES) if line.startswith("FROM ")) :]


def test_every_stage_begins_with_the_base_that_is_given():
    assert [line.split(" AS ")[0] for line in LINES if line.startswith("FROM ")] == ["FROM ${BASE}", "FROM ${BASE}"]


def test_the_final_stage_installs_nothing_and_runs_as_a_user():
    runs = [line for line in FINAL if line.startswith("RUN ")]
    assert all(line.startswith("RUN install -d ") for line in runs)
    (user,) = (line for line in FINAL if line.startswith("USER "))
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)
    assert FINAL.index(user) > FINAL.index(runs[-1])


def test_its_folders_and_its_command_are_those_of_the_installer_and_the_unit():
    (prefix,) = re.findall(r"^prefix=(/\S+)$", FILE.with_name("install.sh").read_text(encoding="utf-8"), re.MULTILINE)
    unit = FILE.with_name("spinescore.service").read_text(encoding="utf-8")
    (variables,) = re.findall(r"^Environment=(.+)$", unit, re.MULTILINE)
    settings = dict(word.split("=", 1) for word in variables.split())
    of_image = dict(re.findall(r"(\w+)=(\S+)", next(line for line in FINAL if line.startswith("ENV "))))
    assert of_image == {**settings, "PATH": f"{prefix}/current/bin:$PATH"}
    assert f"COPY --from=install {prefix} {prefix}" in FINAL
    folders = set(settings.values())
    assert set(json.loads(words_of("VOLUME"))) == folders
    made = words_of("RUN").split()
    assert folders == {word for word in made if word.startswith("/")}
    assert words_of("USER") == f"{made[made.index('-o') + 1]}:{made[made.index('-g') + 1]}"
    command = [f"{prefix}/current/bin/{json.loads(words_of('ENTRYPOINT'))[0]}", *json.loads(words_of("CMD"))]
    assert f"ExecStart={' '.join(command)}" in unit.splitlines()


def words_of(instruction: str) -> str:
    """The rest of the only line of the final stage with an instruction."""
    (line,) = (line for line in FINAL if line.startswith(f"{instruction} "))
    return line.partition(" ")[2].strip()


@pytest.mark.parametrize("running", [True, False])
def test_the_health_check_reads_the_state_of_the_service(running):
    (check,) = (line for line in FINAL if line.startswith("HEALTHCHECK "))
    (pattern,) = re.findall(r"spinescore status \| grep -q '([^']+)'", check)
    shown = next(_lines({"worker": {}, "running": running, "ready": running}))
    assert bool(re.search(pattern, shown)) == running


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_hadolint_finds_nothing():
    ended = subprocess.run(["hadolint", str(FILE)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout
