"""A record as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spinescore.benchmarks.harness.timing import PERCENTILES

__all__ = ["heading", "markdown", "protocol", "result_text"]

_SHOWN = ("python", "spinescore", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless",
          "pydicom", "imagecodecs", "torch")  # fmt: skip

Row = Sequence[str]
Record = Mapping[str, Any]


def markdown(record: Record) -> str:
    """Return all figures of the record but the series, with a heading for each bundle and the protocol at the end."""
    return "\n".join([heading(record), *map(result_text, record["results"]), protocol(record)])


def heading(record: Record) -> str:
    """Return the title, the machine and the study."""
    hardware, versions = record["hardware"], record["versions"]
    clock = f"{hardware['clock_mhz']} MHz" if hardware["clock_mhz"] else "clock unknown"
    governor = f"governor {hardware['governor'] or 'unknown'}"
    parts = [
        "# Latency of a study",
        f"{hardware['cpu']}, {hardware['cores']} cores, {clock}, {governor}, {record['date'][:10]}; "
        + ", ".join(f"{name} {versions[name]}" for name in _SHOWN if name in versions),
        f"Study: {_images(record['study'])}, {record['study']['transfer_syntax']}",
    ]
    return "\n\n".join(parts) + "\n"


def result_text(result: Record) -> str:
    """Return the tables of one bundle."""
    device, bundle = result["device"], result["bundle"]
    threads = result["options"].get("threads")
    parts = [
        f"## {bundle['name']} {bundle['version']} on {device['kind']}: {device['engine']}, {device['precision']}"
        + (f", {threads} threads" if threads else "")
        + (f", localizer {bundle['localizer']}" if bundle.get("localizer") else "")
    ]
    parts += [f"**{warning}**" for warning in result["warnings"]]
    for name, write in _PARTS.items():
        if result.get(name) is not None:  # records of earlier versions lack parts
            parts += write(result[name])
    return "\n\n".join(parts) + "\n"


def protocol(record: Record) -> str:
    """Return the section on how it was measured."""
    return f"## Protocol\n\n{record['protocol']}\n"


def _steady(part: Record) -> list[str]:
    rows = [["whole study", *_cells(part["whole"])]]
    rows += [[f"of it {stage}", *_cells(figures)] for stage, figures in part["stages"].items() if stage != "total"]
    rows.append(["its networks alone", *_cells(part["networks"])])
    rows += [[peer["title"], *_cells(peer["whole"])] for peer in part["peers"] if peer["whole"]]
    lines = [
        _table(["steady state, ms", *PERCENTILES, "n"], rows),
        f"Whole study / networks alone: {part['ratio_of_medians']:.3f} ({part['own_ms']:+.1f} ms).",
    ]
    if part["agreement"] is not None:
        same = part["agreement"]
        lines.append(
            f"This engine against ONNX Runtime in FP32: {same['other_grades']} of {same['corners']} grades differ, "
            f"probabilities within {same['max_probability_difference']:.1e}."
        )
    lines += [_peer(peer) for peer in part["peers"]]
    return lines


def _peer(peer: Record) -> str:
    same = peer["agreement"]
    if peer["reason"] is not None:
        return f"{peer['title']}: not timed, {peer['reason']}."
    return (
        f"{peer['title']} ({peer['framework']}): {peer['times_ours']:.2f} times the whole study; the same "
        f"{same['corners']} grades, probabilities within {same['max_probability_difference']:.1e}."
    )


def _studies(part: Record) -> list[str]:
    kind = "different phantoms, each once" if part["source"] == "phantoms" else "different own studies, each once"
    tried = part["scored"] + part["not_scored"]
    lines = [f"Of {tried} {kind}, {part['not_scored']} could not be scored."] if part["not_scored"] else []
    if part["whole"] is None:
        return lines
    return [_table([f"{kind}, ms", *PERCENTILES, "n"], [["whole study", *_cells(part["whole"])]]), *lines]


def _starts(part: Record) -> list[str]:
    names = {
        ("cold", "to_first_score"): "cold start: process to first score",
        ("cold", "import"): "of it imports",
        ("cold", "open"): "of it opening the bundle",
        ("cold", "first_study"): "of it the first study",
        ("cold", "to_exit"): "process to its end",
        ("cold", "command"): "`spinescore score`: process to its end",
        ("warm", "open"): "warm start: opening again",
        ("warm", "first_study"): "first study after it",
    }
    rows = [[title, *_cells(part[group][step])] for (group, step), title in names.items() if step in part[group]]
    return [_table(["starts, ms", *PERCENTILES, "n"], rows)]


def _memory(part: Record) -> list[str]:
    if part["reason"]:
        return [f"Memory: not known, {part['reason']}."]
    titles = {"study": "process that scores", "networks": "process with the networks alone"}
    kinds = ("resident_bytes", "peak_bytes", "device_bytes")
    rows = [[title, *(_mib(part[name][kind]) for kind in kinds)] for name, title in titles.items()]
    own = f"Peak of a study less that of its networks alone: {part['own_peak_bytes'] / 2**20:.0f} MiB."
    return [_table(["memory, MiB", "resident", "peak", "device"], rows), own]


def _images_part(part: Sequence[Record]) -> list[str]:
    rows = []
    for image in part:
        read, whole = image["read"], image["whole"]
        numbers = (image["bytes"] / 1e6, read["p50"], whole["p50"], whole["max"])
        cells = (f"{number:.1f}" for number in numbers)
        rows.append([f"{image['megapixels']:g}", image["transfer_syntax"], *cells, str(whole["n"])])
    return [_table(["megapixels", "transfer syntax", "MB", "read p50, ms", "whole p50, ms", "max", "n"], rows)]


def _load(part: Sequence[Record]) -> list[str]:
    rows = []
    for step in part:
        at_once, each = str(step["concurrent"]), str(step["threads_each"])
        rows.append([at_once, each, "closed loop", f"{step['most_per_s']:.2f}", *[""] * 5])
        for rate in step["open_loop"]:
            offered = f"{rate['offered_per_s']:.2f} offered"
            rows.append(["", "", offered, f"{rate['achieved_per_s']:.2f}", *_cells(rate["latency"])])
    return [_table(["at once", "threads each", "load", "studies/s", *(f"{p}, ms" for p in PERCENTILES), "n"], rows)]


def _energy(part: Record) -> list[str]:
    if part["joules_per_study"] is None:
        return [f"Energy: not measured, {part['reason']}."]
    return [
        f"Energy ({part['source']}): {part['joules_per_study']:.2f} J a study, {part['watts']:.1f} W while scoring, "
        f"{part['idle_watts']:.1f} W idle."
    ]


_PARTS: Mapping[str, Callable[[Any], list[str]]] = {
    "steady": _steady,
    "studies": _studies,
    "starts": _starts,
    "memory": _memory,
    "images": _images_part,
    "load": _load,
    "energy": _energy,
}


def _images(study: Record) -> str:
    return " and ".join(f"{image['rows']} x {image['columns']}" for image in study["images"]) or "no images"


def _cells(figures: Record) -> list[str]:
    return [*(f"{figures[name]:.1f}" for name in PERCENTILES), str(figures["n"])]


def _mib(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.0f}"


def _table(header: Row, rows: Sequence[Row]) -> str:
    """Return a Markdown table: the first column to the left, numbers to the right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ruler, *rows))
