"""The commands of README.md and docs run, page by page, each in its turn."""

from __future__ import annotations

import shlex

import pytest

from helpers.documentation import PAGES, Folder, commands, is_marked
from spinescore.runtime import cli
from spinescore.runtime.phantom import write_study

RUN = {
    page: [line for line in commands(page) if line.startswith("spinescore ") and not is_marked(line)] for page in PAGES
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The radiographs of a phantom, and its truth."""
    folder = tmp_path_factory.mktemp("phantom")
    write_study(1_500_000, folder)
    return folder


@pytest.mark.parametrize("page", [page for page, lines in RUN.items() if lines])
def test_commands_run_in_the_order_of_the_page(tmp_path, monkeypatch, study, page):
    monkeypatch.chdir(tmp_path)

    def run(line):
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, line

    folder = Folder(tmp_path, page, study, run)
    for line in RUN[page]:
        folder.prepare(shlex.split(line, comments=True))
        run(line)
