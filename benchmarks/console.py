"""Measures what a console pays for the local HTTP service beside the scorer in its own process.

    python -m spinescore.benchmarks.console [--studies N] [--rounds N] [--bundle B] [--out F]

The service (`spinescore serve --http-only`) scores one study again and again: two raw frames of 3000 x 2500 pixels in
16 bits, 15 MB each, whose region and facing are stated, and the same pixels as uncompressed DICOM files. `answer_ms`
runs from the connection to the last byte of the answer, `scoring_ms` is the report's own time in the same call, and
`overhead_ms` the difference. `in_process_ms` is `Scorer.score` on the same frames here, after the service ended.
`library`: the frames sent by the C library, compiled by `cc -O2`, over the unix socket and over TCP; `answer_ms` is the
time of its call, and `above_in_process_ms` that time less the median of `in_process_ms`.
`at_once`: four consoles, each with one call after the other; their slowest answers are compared with `queue_ms`, four
times the median time of one call alone. `start_s`: from the start of the process to the first answer, and the same
without the opening of the bundle, which is timed in a process of its own. All processes share the machine's cores.
Needs the extra `appliance`.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks import consolelibrary
from spinescore.benchmarks.consolelibrary import scoring_ms
from spinescore.benchmarks.harness.child import SPINESCORE, answer, session, this_module
from spinescore.benchmarks.harness.ports import free_port
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.studies import study_of_size
from spinescore.benchmarks.harness.timing import percentiles
from spinescore.runtime.phantom import draw_view
from spinescore.runtime.reading.arrays import radiograph_from_array
from spinescore.runtime.study import REGIONS, Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["main"]

SCHEMA = "spinescore.console/1"
_SEED = 1_500_000
_ROWS, _COLUMNS = 3000, 2500
_SMALL = 0.25  # of a drawing that only tells how the patient stands
_CONSOLES = 4
_WAIT_S = 300.0
_WARM_UP = 3
_BOUNDARY = "spinescore-console"
_FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


class _Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_WAIT_S)
        self._path = path

    def connect(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("Python has no unix sockets on Windows")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class _Service:
    socket: Path
    started_s: float

    def ask(self, body: bytes) -> tuple[float, float]:
        """Return the milliseconds of a call with this form, and those of the scoring in it."""
        started = time.perf_counter()
        connection = _Connection(self.socket)
        try:
            connection.request("POST", "/v1/score", body, _FORM)
            answered = connection.getresponse()
            content = answered.read()
        finally:
            connection.close()
        total_ms = (time.perf_counter() - started) * 1e3
        if answered.status != http.client.OK:
            raise RuntimeError(f"the service answered {answered.status}: {content[:300]!r}")
        return total_ms, scoring_ms(json.loads(content))

    def is_ready(self) -> bool:
        connection = _Connection(self.socket)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def _service(folder: Path, bundle: str, port: int | None = None) -> Iterator[_Service]:
    """Run a service until the block ends; it is ready when the block begins."""
    words = [*SPINESCORE, "serve", "--http-only", "--device", "cpu", "--bundle", bundle, "--folder", str(folder)]
    words += [] if port is None else ["--port", str(port)]
    service = _Service(folder / "http.sock", time.perf_counter())
    with session(words) as process:
        while not service.is_ready():
            if process.poll() is not None or time.perf_counter() - service.started_s > _WAIT_S:
                raise RuntimeError("the service did not start")
            time.sleep(0.02)
        yield service


def _views(study: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Return what a console says of each of its frames."""
    return [
        {"part": region, "rows": ds.Rows, "columns": ds.Columns, "bits_allocated": 16, "bits_stored": ds.BitsStored,
         "photometric_interpretation": ds.PhotometricInterpretation, "region": region,
         "facing": draw_view(_SEED, region, _SMALL).facing,
         "pixel_spacing_mm": [float(side) for side in ds.ImagerPixelSpacing]}
        for region, ds in zip(REGIONS, study, strict=True)
    ]  # fmt: skip


def _radiographs(study: Sequence[Dataset]) -> list[Radiograph]:
    """Return the frames as a program in Python has them."""
    return [
        radiograph_from_array(
            ds.pixel_array, region=view["region"], facing=view["facing"], spacing_mm=tuple(view["pixel_spacing_mm"]),
            photometric=view["photometric_interpretation"], bits_stored=view["bits_stored"], name=view["part"],
        )
        for ds, view in zip(study, _views(study), strict=True)
    ]  # fmt: skip


def _frames(study: Sequence[Dataset]) -> bytes:
    """Return the form with raw frames."""
    views = _views(study)
    parts = [("request", "application/json", json.dumps({"views": views}).encode())]
    frames = [(view["part"], "application/octet-stream", ds.PixelData) for view, ds in zip(views, study, strict=True)]
    return _form(parts + frames)


def _files(study: Sequence[Dataset]) -> bytes:
    """Return the form with DICOM files."""
    parts = []
    for region, ds in zip(REGIONS, study, strict=True):
        buffer = io.BytesIO()
        ds.save_as(buffer)
        parts.append((region, "application/dicom", buffer.getvalue()))
    return _form(parts)


def _form(parts: Sequence[tuple[str, str, bytes]]) -> bytes:
    lines = []
    for name, kind, content in parts:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n\r\n'
        lines += [head.encode(), content, b"\r\n"]
    return b"".join([*lines, f"--{_BOUNDARY}--\r\n".encode()])


def _alone(service: _Service, form: bytes, count: int) -> dict[str, Any]:
    """Return the times of one console that is alone."""
    for _ in range(_WARM_UP):
        service.ask(form)
    times = [service.ask(form) for _ in range(count)]
    return {"megabytes": round(len(form) / 1e6, 1), "studies": count, **_figures(times)}


def _figures(times: Sequence[tuple[float, float]], of: Sequence[int] = (50, 90, 99)) -> dict[str, Any]:
    return {
        "answer_ms": percentiles([total for total, _ in times], of=of),
        "scoring_ms": percentiles([scoring for _, scoring in times], of=of),
        "overhead_ms": percentiles([total - scoring for total, scoring in times], of=of),
    }


def _library(scratch: Path, service: _Service, port: int, study: Sequence[Dataset], count: int) -> dict[str, Any]:
    """Return the times of the C library over each of its ways; nothing if there is no C compiler."""
    token = (service.socket.parent / "token").read_text(encoding="ascii").strip()
    ways = {"unix": (str(service.socket), None), "tcp": (f"127.0.0.1:{port}", token)}
    pixels = [ds.PixelData for ds in study]
    times = consolelibrary.measure(scratch / "library", ways, _views(study), pixels, _WARM_UP + count)
    figures = {name: _figures(some[_WARM_UP:], (50, 90, 95, 99)) for name, some in times.items()}
    return {"compiler": " ".join(consolelibrary.COMPILER), "studies": count, **figures} if figures else {}


def _add_above(library: dict[str, Any], in_process_ms: float) -> None:
    """Add what each way of the C library takes above the scorer in process."""
    for figures in library.values():
        if isinstance(figures, dict):
            answers = figures["answer_ms"].items()
            figures["above_in_process_ms"] = {name: round(ms - in_process_ms, 3) for name, ms in answers}


def _at_once(service: _Service, form: bytes, count: int, one_ms: float) -> dict[str, Any]:
    """Return the times of four consoles at once."""

    def console(_: int) -> list[float]:
        return [service.ask(form)[0] for _ in range(count)]

    with ThreadPoolExecutor(_CONSOLES) as pool:
        times = [ms for some in pool.map(console, range(_CONSOLES)) for ms in some]
    answers, queue_ms = percentiles(times), _CONSOLES * one_ms
    return {"consoles": _CONSOLES, "studies": len(times), "answer_ms": answers, "queue_ms": round(queue_ms, 3),
            "slowest_over_queue": round(max(times) / queue_ms, 3)}  # fmt: skip


def _in_process(radiographs: Sequence[Radiograph], bundle: str, count: int) -> dict[str, float]:
    from spinescore.runtime import Scorer

    times = []
    with Scorer.open(bundle, "cpu", build="no") as scorer:
        for _ in range(_WARM_UP + count):
            started = time.perf_counter()
            scorer.score(radiographs)
            times.append((time.perf_counter() - started) * 1e3)
    return percentiles(times[_WARM_UP:])


def _start(scratch: Path, form: bytes, bundle: str, rounds: int) -> dict[str, Any]:
    """Return the seconds from the start of the service to its first answer, and those of the opening alone."""
    first_s, opening_s = [], []
    for number in range(rounds):
        opening_s.append(answer(this_module("console", "--opening", bundle)))
        with _service(scratch / f"start-{number}", bundle) as service:
            _, scoring_ms = service.ask(form)
            first_s.append(time.perf_counter() - service.started_s - scoring_ms / 1e3)
    above = [first - opening for first, opening in zip(first_s, opening_s, strict=True)]
    return {"starts": rounds, "first_answer_s": percentiles(first_s, of=(50,)),
            "opening_s": percentiles(opening_s, of=(50,)), "above_opening_s": percentiles(above, of=(50,))}  # fmt: skip


def _print_opening(bundle: str) -> int:
    """Print the seconds that a new process takes to open the bundle."""
    from spinescore.runtime import Scorer

    started = time.perf_counter()
    with Scorer.open(bundle, "cpu", build="no"):
        print(json.dumps(time.perf_counter() - started))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0."""
    command = Command("console", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--studies", type=int, default=100, metavar="N", help="calls of one console, and of each of four at once (100)")
    add("--rounds", type=int, default=5, metavar="N", help="starts of the service that are timed (5)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--opening", metavar="B", help="only print how long a process takes to open this bundle")
    arguments = command.start(argv)
    if arguments.opening:
        return _print_opening(arguments.opening)
    os.environ.setdefault("SPINESCORE_CHECK", "0")  # one engine for all: that of the first study
    study = study_of_size(_SEED, _ROWS, _COLUMNS)
    frames, files = _frames(study), _files(study)
    with tempfile.TemporaryDirectory(prefix="spinescore-console-") as name:
        port = free_port()
        with _service(Path(name) / "service", arguments.bundle, port) as service:
            figures: dict[str, Any] = {"frames": _alone(service, frames, arguments.studies)}
            figures["dicom"] = _alone(service, files, arguments.studies)
            one_ms = figures["frames"]["answer_ms"]["p50"]
            figures["library"] = _library(Path(name), service, port, study, arguments.studies)
            figures["at_once"] = _at_once(service, frames, arguments.studies, one_ms)
        figures["start"] = _start(Path(name), frames, arguments.bundle, arguments.rounds)
    figures["in_process_ms"] = _in_process(_radiographs(study), arguments.bundle, arguments.studies)
    _add_above(figures["library"], figures["in_process_ms"]["p50"])
    command.publish(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
