"""The two networks in PyTorch, with the official names of their weights, to train the shipped bundle.

HRNet follows leoxiaobin/deep-high-resolution-net.pytorch (Sun et al. 2019, arXiv 1902.09212), ResNet follows
torchvision (He et al. 2016, arXiv 1512.03385, stride in the 3x3 convolution). Any width is possible.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["HRNet", "ResNet"]


def _conv(cin: int, cout: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, size, stride, size // 2, bias=bias)


def _conv_bn(cin: int, cout: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [_conv(cin, cout, size, stride), nn.BatchNorm2d(cout)]


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = _conv(cout, cout, 3), nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential(*_conv_bn(cin, cout, 1, stride)) if stride != 1 or cin != cout else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, cin: int, width: int, stride: int = 1) -> None:
        super().__init__()
        cout = width * self.expansion
        self.conv1, self.bn1 = _conv(cin, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, cout, 1), nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential(*_conv_bn(cin, cout, 1, stride)) if stride != 1 or cin != cout else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ExchangeModule(nn.Module):
    """Parallel branches of four basic blocks each; then every branch is fused into every other."""

    def __init__(self, widths: list[int], multi_scale_output: bool = True) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w) for _ in range(4))) for w in widths)
        outputs = len(widths) if multi_scale_output else 1
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList([self._fuse(widths, source, target) for source in range(len(widths))])
            for target in range(outputs)
        )

    @staticmethod
    def _fuse(widths: list[int], source: int, target: int) -> nn.Module | None:
        if source == target:
            return None
        if source > target:
            up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
            return nn.Sequential(*_conv_bn(widths[source], widths[target], 1), up)
        steps: list[nn.Module] = []
        for step in range(target - source):
            last = step == target - source - 1
            layers = _conv_bn(widths[source], widths[target] if last else widths[source], 3, 2)
            steps.append(nn.Sequential(*layers) if last else nn.Sequential(*layers, nn.ReLU()))
        return nn.Sequential(*steps)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        ys = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        return [
            torch.relu(sum(y if layer is None else layer(y) for layer, y in zip(row, ys, strict=True)))
            for row in self.fuse_layers
        ]


class HRNet(nn.Module):
    """From (N, channels, H, W) to heatmaps (N, joints, H/4, W/4). `width` is the channels of the finest branch."""

    def __init__(
        self, width: int, joints: int, channels: int = 3, stem: int = 64, modules: tuple[int, ...] = (1, 4, 3)
    ):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, stem, 3, 2), nn.BatchNorm2d(stem)
        self.conv2, self.bn2 = _conv(stem, stem, 3, 2), nn.BatchNorm2d(stem)
        blocks = [Bottleneck(stem, stem)] + [Bottleneck(4 * stem, stem) for _ in range(3)]
        self.layer1 = nn.Sequential(*blocks)
        widths = [4 * stem]
        for index, count in enumerate(modules):
            wider = [width * 2**i for i in range(index + 2)]
            self.add_module(f"transition{index + 1}", self._transition(widths, wider))
            last = index == len(modules) - 1
            stage = [ExchangeModule(wider, not (last and m == count - 1)) for m in range(count)]
            self.add_module(f"stage{index + 2}", nn.Sequential(*stage))
            widths = wider
        self.final_layer = nn.Conv2d(width, joints, 1)

    @staticmethod
    def _transition(old: list[int], new: list[int]) -> nn.ModuleList:
        layers: list[nn.Module | None] = []
        for i, width in enumerate(new):
            if i < len(old):
                same = old[i] == width
                layers.append(None if same else nn.Sequential(*_conv_bn(old[i], width, 3), nn.ReLU()))
            else:
                layers.append(nn.Sequential(nn.Sequential(*_conv_bn(old[-1], width, 3, 2), nn.ReLU())))
        return nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        xs = [self.layer1(torch.relu(self.bn2(self.conv2(x))))]
        for index in range(1, 4):
            transition = getattr(self, f"transition{index}")
            inputs = [xs[min(i, len(xs) - 1)] for i in range(len(transition))]
            xs = [x if layer is None else layer(x) for layer, x in zip(transition, inputs, strict=True)]
            xs = getattr(self, f"stage{index + 1}")(xs)
        out: Tensor = self.final_layer(xs[0])
        return out


class ResNet(nn.Module):
    """From (N, channels, H, W) to logits (N, outputs); `width` is 64 in the published networks."""

    def __init__(self, depths: tuple[int, ...] = (3, 8, 36, 3), width: int = 64, outputs: int = 8, channels: int = 3):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 7, 2), nn.BatchNorm2d(width)
        cin = width
        for index, depth in enumerate(depths):
            blocks = []
            for b in range(depth):
                blocks.append(Bottleneck(cin, width * 2**index, 2 if b == 0 and index > 0 else 1))
                cin = 4 * width * 2**index
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fc = nn.Linear(cin, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out
