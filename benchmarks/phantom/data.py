"""Training data: phantom radiographs as 8-bit pictures with their points, and crops with their grades.

    python -m spinescore.benchmarks.phantom.data --out DIR --first 0 --count 4000

Seeds below 100,000 are for training; the shipped bundle is measured on seeds from 1,000,000 on. A shard holds
`STUDIES` studies: `views` (V, 640, 480) letterboxed radiographs that face left, `points` (V, 6, 2, 2) centre and
anterior of each disc in their pixels, `regions` (V,), `crops` (C, 320, 320) and `grades` (C, 2).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.phantom.study import PhantomView, draw_view
from spinescore.runtime.study import REGIONS

__all__ = [
    "CROP_EXTENT",
    "CROP_SIZE",
    "STUDIES",
    "VIEW_SIZE",
    "crop_picture",
    "grey_picture",
    "view_picture",
    "write_shard",
]

VIEW_SIZE = (640, 480)  # rows, columns
CROP_SIZE = 320
CROP_EXTENT = 4.0  # times the distance centre-anterior; the grader's crop is 3.2, the rest is room for jitter
STUDIES = 50
_TRAINING_SEEDS = 100_000


def grey_picture(view: PhantomView, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the radiograph as displayed, in [0, 1]: by its window, or by percentiles if the modality wrote none."""
    image = view.image
    if image.window is not None:
        centre, width = image.window
        low, high = centre - width / 2, centre + width / 2
    else:
        ends = (rng.uniform(0.3, 3), rng.uniform(97.5, 99.8))
        low, high = (float(p) for p in np.percentile(image.pixels[::8, ::8], ends))
    table = np.clip((np.arange(2**image.bits, dtype=np.float32) - low) / max(high - low, 1), 0, 1)
    table = 1 - table if image.inverted else table
    return table.astype(np.float32)[image.pixels]


def view_picture(view: PhantomView, grey: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the whole radiograph facing left, letterboxed into `VIEW_SIZE`, and its points (6, 2, 2) there."""
    points = np.stack([view.centres_px, view.anteriors_px], 1)
    if view.facing == "right":
        grey = grey[:, ::-1]
        points = points * [-1, 1] + [grey.shape[1] - 1, 0]
    rows, columns = grey.shape
    scale = min(VIEW_SIZE[0] / rows, VIEW_SIZE[1] / columns)
    size = (round(columns * scale), round(rows * scale))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    picture = np.zeros(VIEW_SIZE, np.uint8)
    y, x = (VIEW_SIZE[0] - size[1]) // 2, (VIEW_SIZE[1] - size[0]) // 2
    picture[y : y + size[1], x : x + size[0]] = np.rint(small * 255)
    ratio = np.array([size[0] / columns, size[1] / rows])
    return picture, ((points + 0.5) * ratio - 0.5 + [x, y]).astype(np.float32)


def crop_picture(view: PhantomView, grey: NDArray[np.float32], disc: int) -> NDArray[np.uint8]:
    """Cut the region of `disc`, anterior to the left, `CROP_EXTENT` wide, averaged over 2 x 2 samples a pixel."""
    centre, anterior = view.centres_px[disc], view.anteriors_px[disc]
    offset = anterior - centre
    across = -offset / np.linalg.norm(offset)
    down = np.array([-across[1], across[0]]) * (1 if view.facing == "left" else -1)
    fine = 2 * CROP_SIZE
    step = CROP_EXTENT * float(np.linalg.norm(offset)) / fine
    axes = np.stack([across, down], 1) * step
    matrix = np.concatenate([axes, (centre - axes.sum(1) * (fine - 1) / 2)[:, None]], 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(grey, matrix, (fine, fine), flags=flags)
    picture = cv2.resize(warped, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    return np.rint(picture * 255).astype(np.uint8)


def write_shard(path: Path, first: int) -> None:
    """Draw the studies `first` .. `first + STUDIES - 1` and write them as one `.npz`."""
    views, points, regions, crops, grades = [], [], [], [], []
    for seed in range(first, first + STUDIES):
        rng = np.random.default_rng([seed, 7])
        for region in REGIONS:
            # Lumbar radiographs have twice the pixels that a crop resolves; part of them is drawn coarser to save time.
            view = draw_view(seed, region, 1.0 if region == "cervical" else float(rng.uniform(0.6, 1.0)))
            grey = grey_picture(view, rng)
            picture, places = view_picture(view, grey)
            views.append(picture)
            points.append(places)
            regions.append(REGIONS.index(region))
            crops += [crop_picture(view, grey, disc) for disc in range(6)]
            grades += list(view.grades)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, views=views, points=points, regions=np.array(regions), crops=crops, grades=np.array(grades))
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--first", type=int, default=0, help="first seed, a multiple of 50 (0)")
    parser.add_argument("--count", type=int, default=4000, help="studies, a multiple of 50 (4000)")
    text = "take every n-th shard (to share the work between processes)"
    parser.add_argument("--step", type=int, default=1, help=text)
    args = parser.parse_args()
    if args.first % STUDIES or args.count % STUDIES or args.first + args.count > _TRAINING_SEEDS:
        parser.error(f"--first and --count are multiples of {STUDIES}, and training seeds lie below {_TRAINING_SEEDS}")
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    for shard in range(args.first // STUDIES, (args.first + args.count) // STUDIES, args.step):
        path = args.out / f"shard-{shard:05d}.npz"
        if not path.exists():
            write_shard(path, shard * STUDIES)


if __name__ == "__main__":
    main()
