"""Whether a bundle's networks can be opened and run on this machine without taking its memory or its time.

The graph of each network is read without an engine. Every operator must be one whose result's size is known before it
runs, and memory and multiplications must stay within bounds for every input in the bundle's pipeline.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from spinescore.runtime.bundle.networkcheck.costs import TooCostly, costs_of, has_sizes
from spinescore.runtime.bundle.networkcheck.graph import Graph, read_graph
from spinescore.runtime.bundle.networkcheck.inputs import Shape
from spinescore.runtime.bundle.networkcheck.wire import external_files
from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import open_regular
from spinescore.runtime.machine.memory import memory_bytes
from spinescore.runtime.manifest import Manifest

__all__ = ["MOST_BYTES", "MOST_WORK", "TooCostly", "check_networks", "read_network"]

# The memory bound is for machines with 16 GiB or more; on a smaller one it is half of the memory. A full-size HRNet-W48
# of 512 x 384 pixels and a ResNet152 take about a tenth of both bounds.
MOST_BYTES = 8 * 2**30
MOST_WORK = 10 * 10**12  # multiplications for a batch
_LOCALIZER_BATCH = 8  # a golden run has eight pictures, a study two
_GRADER_BATCH = 24  # two views of six discs, each with a flip
_ENGINES = "engines/"  # files that the bundle's hash leaves out


def check_networks(folder: Path, manifest: Manifest) -> None:
    """Check every network that the manifest names.

    Raises `BundleError` if a network is no ONNX file or takes weights from elsewhere; also, with `TooCostly` as its
    cause, if one takes too much.
    """
    listed = {path for path in manifest.files if not path.startswith(_ENGINES)}
    networks = _networks(manifest)
    graphs = {name: _graph(folder, name, listed) for name in networks}
    for name, inputs in networks.items():
        graph = graphs[name]
        for batch, *picture in inputs:
            for count in range(1 if has_sizes(graph) else batch, batch + 1):
                _check_costs(folder, name, graph, (count, *picture))


def _graph(folder: Path, name: str, listed: Collection[str]) -> Graph:
    """Read the graph of a network. Refuses files that are no ONNX, and weights in files that are not listed."""
    path = folder / name
    if path.suffix != ".onnx" or name.startswith(_ENGINES):
        raise BundleError(
            f"The manifest names {name!r} as a network; networks are .onnx files outside {_ENGINES}. Export the bundle "
            "again."
        )
    graph, locations = read_network(path)
    for location in sorted(locations):
        if str(PurePosixPath(name).parent / location) not in listed:
            raise BundleError(
                f"The network {path} takes weights from {location!r}, which the manifest does not list; the bundle's "
                "hash does not cover them. Export the bundle again."
            )
    return graph


def _check_costs(folder: Path, name: str, graph: Graph, image: Shape) -> None:
    most_bytes = min(MOST_BYTES, memory_bytes() // 2)
    try:
        costs_of(graph, image, most_bytes, MOST_WORK)
    except TooCostly as error:
        raise BundleError(
            f"The network {folder / name} may take all memory of this computer, or run for ever: {error}. Allowed for "
            f"{image[0]} pictures are {most_bytes / 2**30:.1f} GiB and {MOST_WORK:.0e} multiplications. Export a "
            f"network without that node; or, if you trust its maker, run `spinescore bundle trust {folder}`."
        ) from error


def _networks(manifest: Manifest) -> dict[str, set[Shape]]:
    """Return the shapes of the largest inputs of every network."""
    localizer, grader = manifest.localizer, manifest.grader
    scaled = [localizer.input_at(scale) for scale in {1.0, *localizer.averaging.scales}]
    pictures = [(_LOCALIZER_BATCH, size.channels, size.height, size.width) for size in scaled]
    crops = [(_GRADER_BATCH, grader.input.channels, grader.input.height, grader.input.width)]
    localizers = [localizer.files, *(alternative.files for alternative in localizer.alternatives)]
    networks = [(files, pictures) for by_region in localizers for files in by_region.values()]
    networks += [(files, crops) for files in grader.files.values()]
    inputs: dict[str, set[Shape]] = {}
    for files, shapes in networks:
        for path in files.values():
            inputs.setdefault(path, set()).update(shapes)
    return inputs


def read_network(path: Path) -> tuple[Graph, frozenset[str]]:
    """Return the graph of an ONNX file, and the files that it takes weights from.

    Raises `BundleError` if it is none, or damaged.
    """
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return read_graph(data), external_files(data)
    except (IndexError, ValueError, RecursionError) as error:
        raise BundleError(
            f"The network {path} is no ONNX file, or damaged ({error}); export the bundle again."
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"The network {path} cannot be read ({reason}); copy or export it again.") from error
