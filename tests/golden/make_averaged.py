"""Writes `flip-test.npz`: the official repository's flip test of hrnet-legacy.pth, made with PyTorch alone.

    cd tests && python -m golden.make_averaged      # PyTorch 2.13

Its definition (deep-high-resolution-net.pytorch: `validate` in lib/core/function.py, `flip_back` in
lib/utils/transforms.py): the mean of what the network gives for an image, and of what it gives for the flipped image,
turned back along the last axis with matched pairs of points exchanged (a spine has none). With TEST.SHIFT_HEATMAP the
turned heatmaps are moved one column to the right, and the first column stays. `flip` and `shift` are the heatmaps of
the flip test without and with the shift; the images are those of make_networks.py.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from golden.make_networks import legacy_hrnet, pixels
from golden.packing import FOLDER, contents, in_steps


def flip_test(network: torch.nn.Module, images: torch.Tensor, shift: bool) -> torch.Tensor:
    back = torch.flip(network(torch.flip(images, (-1,))), (-1,))
    if shift:
        back[:, :, :, 1:] = back.clone()[:, :, :, :-1]
    return (network(images) + back) / 2


def main() -> None:
    state = torch.load(io.BytesIO(contents("networks-torch")["hrnet-legacy.pth"]), weights_only=True)["state_dict"]
    network = legacy_hrnet()
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    network.eval()
    images = torch.from_numpy(pixels(3)[:1])
    with torch.no_grad():
        outputs = {"flip": flip_test(network, images, False), "shift": flip_test(network, images, True)}
    np.savez_compressed(FOLDER / "flip-test.npz", **{name: in_steps(one.numpy()) for name, one in outputs.items()})


if __name__ == "__main__":
    main()
