"""The C library of consoles that `spinescore.benchmarks.console` times, compiled by `cc -O2`, over both of its ways."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spinescore.runtime.console import write_sdk

__all__ = ["COMPILER", "measure", "scoring_ms"]

COMPILER = ("cc", "-std=c99", "-O2")
_TIMEOUT_S = 3600.0

Way = tuple[str, "str | None"]


def measure(
    folder: Path, ways: Mapping[str, Way], views: Sequence[Mapping[str, Any]], pixels: Sequence[bytes], count: int
) -> dict[str, list[tuple[float, float]]]:
    """Score raw frames `count` times over each way; return the milliseconds of each call, and of the scoring in it.

    A way is an address and its token. The library is built in the folder. Without a C compiler nothing is returned.
    """
    if shutil.which(COMPILER[0]) is None:
        return {}
    write_sdk(folder)
    sources = [folder / "spinescore.c", folder / "spinescore_codes.c", Path(__file__).with_name("consolelibrary.c")]
    program = folder / "consolelibrary"
    subprocess.run([*COMPILER, "-I", str(folder), *map(str, sources), "-o", str(program)], check=True)
    first = views[0]
    words = [count, first["rows"], first["columns"], first["bits_stored"], first["photometric_interpretation"]]
    for view, content in zip(views, pixels, strict=True):
        frame = folder / f"{view['region']}.raw"
        frame.write_bytes(content)
        words += [view["region"], view["facing"], *view["pixel_spacing_mm"], frame]
    return {name: _call([str(program), address, *map(str, words)], token) for name, (address, token) in ways.items()}


def _call(command: Sequence[str], token: str | None) -> list[tuple[float, float]]:
    environment = os.environ if token is None else {**os.environ, "SPINESCORE_TOKEN": token}
    ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, env=environment, check=True, text=True)
    rest, values, decoder = ended.stdout.strip(), [], json.JSONDecoder()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return [(ms, scoring_ms(answer)) for ms, answer in zip(values[::2], values[1::2], strict=True)]


def scoring_ms(answer: Mapping[str, Any]) -> float:
    """Return the milliseconds that the service scored, with the reading of files."""
    times = answer["report"]["timings_ms"]
    return float(times["total"] + (times["read"] or 0.0))
