"""Refuses networks that have the tensor names of HRNet or torchvision's ResNet but compute something else.

Weights do not show strides, pooling and activations. If names or shapes show another family, the network is refused
under its real name, before it is read as something that it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from spinescore.export.weights import Weights
from spinescore.runtime.errors import CheckpointError

__all__ = ["check_hrnet_relatives", "check_resnet_relatives"]

_ONNX = (
    "Export the model to ONNX and give that file: torch.onnx.export(model.eval(), "
    "torch.zeros(1, CHANNELS, HEIGHT, WIDTH), 'network.onnx', dynamo=False, input_names=['image'], "
    "dynamic_axes={'image': {0: 'N'}})"
)
_IN_BLOCK = r"^layer\d\.\d+\."

# A pattern in a tensor's name, and the property of the network that it shows.
_Signs = tuple[tuple[str, str], ...]
_CHANGED: _Signs = (
    (r"weight_mask$", "is pruned; call torch.nn.utils.prune.remove(module, 'weight') for every layer before saving"),
    (
        r"parametrizations\.|weight_(g|v|u|orig)$",
        "has weight or spectral norm; remove it from every layer before saving",
    ),
    (
        r"\._(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.",
        "has parts in a wrapper (torch.compile, FSDP, ..); take the wrapper's word out of the names before saving",
    ),
    (r"lora_[AB]", "has LoRA layers; merge them into the weights before saving"),
    (
        r"fake_quant|activation_post_process|_packed_params|\.zero_point$",
        "is quantised; give the weights from before that",
    ),
)
_RESNETS: _Signs = (
    (r"\.filt$", "blurs where it halves the picture (BlurPool)"),
    (r"downsample\.2\.running_mean$", "pools in its shortcuts (ResNet-D)"),
    (r"^conv1\.\d+\.", "has a stem of several convolutions (ResNet-C or -D, as timm's resnet152d)"),
    (_IN_BLOCK + r"(\w+\.)?(se|se_module|se_layer)\.|^layer\d\.\d+\.fc\d?\.", "has squeeze-and-excitation blocks"),
    (_IN_BLOCK + r"(ca|sa|cbam|eca|attn|att|attention|nl|gc|context_block)\b", "has attention in its blocks"),
    (_IN_BLOCK + r"bn\d\.(IN|BN)\.", "has instance normalisation (IBN-Net)"),
    (_IN_BLOCK + r"(convs|bns)\.", "is a Res2Net"),
    (r"conv\d?_offset", "has deformable convolutions"),
    (_IN_BLOCK + r"conv\d\.\w+\.", "has convolutions made of several (ResNeSt or SK-Net)"),
    (r"prelu|\bgamma\d?$|\bls\d", "has activations or scales with weights of their own (PReLU, layer scale)"),
    (_IN_BLOCK + r"shortcut\.", "calls its shortcuts 'shortcut', as ResNets for small pictures do"),
)
_HRNETS: _Signs = (
    (r"^(incre|downsamp)_modules\.", "is an HRNet that classifies, and gives no heatmaps"),
    (r"(^|\.)final_layers\.", "is a HigherHRNet, with heatmaps of two sizes"),
    (r"^(last_layer|ocr_|aux_head|decode_head)", "is an HRNet that segments"),
    (r"(^|\.)deconv_layers\.", "has deconvolutions (SimpleBaseline, or a head of its own)"),
)
_HRNETS_WITHOUT_FINAL_LAYER: _Signs = (
    (r"(^|\.)head\.(cls_|mlp|fc\.|gau)", "has a head that gives coordinates (SimCC, RTMPose, regression), no heatmaps"),
    (r"^head\.\d", "has a head of several layers over all branches, as the HRNet for faces"),
)


def check_hrnet_relatives(weights: Weights) -> None:
    """Refuse weights that have HRNet's names but belong to another network. Raises CheckpointError."""
    without_end = () if "final_layer.weight" in weights else _HRNETS_WITHOUT_FINAL_LAYER
    _refuse(weights, _signs(weights, _CHANGED + _HRNETS + without_end))


def check_resnet_relatives(weights: Weights) -> None:
    """Refuse weights that have torchvision's names but belong to another network. Raises CheckpointError."""
    if not weights.names("stage2."):  # an HRNet in the grader's place is refused by `Weights.close`
        _refuse(weights, chain(_blocks(weights), _stem(weights), _convolutions(weights), _head(weights)))


def _refuse(weights: Weights, reasons: Iterable[str]) -> None:
    """Raise the error for the first of the reasons, if there is one."""
    for reason in reasons:
        advice = "" if ";" in reason else f" {_ONNX}"  # a semicolon is followed by the next step
        raise CheckpointError(f"{weights.architecture}: {reason}.{advice}")


def _signs(weights: Weights, signs: _Signs) -> Iterator[str]:
    for pattern, trait in signs:
        for name in weights.names():
            if re.search(pattern, name):
                yield f"by its tensor {name[:100]} the network {trait}"


def _blocks(weights: Weights) -> Iterator[str]:
    for name in weights.names("layer"):
        if name.endswith(".downsample.0.bias"):
            yield (
                f"{name} is a bias that torchvision's ResNet does not have and MONAI's has. MONAI's first convolution "
                "has stride 1 unless conv1_t_stride says otherwise (Project-MONAI/MONAI#7572), and weights do not show "
                "it, so this cannot be read as torchvision's"
            )
    yield from _signs(weights, _CHANGED + _RESNETS)
    for block in ("layer2.0", "layer3.0", "layer4.0"):
        if f"{block}.conv1.weight" in weights and f"{block}.downsample.0.weight" not in weights:
            yield (
                f"{block} halves the picture and has no downsample.0.weight: its shortcut is of type A (for small "
                "pictures, or MONAI's shortcut_type='A'), which torchvision's ResNet does not have"
            )
    if "bn1.weight" in weights and "bn1.running_mean" not in weights:
        yield (
            "bn1 has no running_mean: the network has GroupNorm, or batch normalisation without statistics, which "
            "torchvision's ResNet does not have"
        )
    conv, norm = "layer1.0.conv3.weight", "layer1.0.bn3.weight"
    shape = weights.shape(conv) if conv in weights and norm in weights else ()
    if len(shape) == 4 and shape[0] != shape[1] and weights.shape(norm) == (shape[1],):
        yield f"{norm} has the size of what {conv} takes: the normalisation stands before it (pre-activation)"


def _stem(weights: Weights) -> Iterator[str]:
    shape = weights.shape("conv1.weight") if "conv1.weight" in weights else ()
    if len(shape) == 5:
        yield f"conv1.weight has shape {shape}: the network is one for volumes"
    if len(shape) == 4 and shape[2:] != (7, 7):
        yield (
            f"conv1.weight is {shape[2]}x{shape[3]}, torchvision's is 7x7. Such a stem usually has stride 1 and no "
            "pooling behind it (ResNets for small pictures), which weights do not show"
        )


def _convolutions(weights: Weights) -> Iterator[str]:
    for name in weights.names():
        if re.fullmatch(r"(layer\d\.\d+\.)?conv\d\.bias", name):
            yield (
                f"{name} is a bias that torchvision's ResNet does not have. Networks that came from Keras have it, and "
                "their stride stands in another convolution, which weights do not show"
            )
        second = re.fullmatch(r"(layer\d\.\d+)\.conv2\.weight", name)
        if second and f"{second[1]}.conv1.weight" in weights:
            takes, first = weights.shape(name), weights.shape(f"{second[1]}.conv1.weight")
            if len(takes) == len(first) == 4 and takes[1] and takes[1] < first[0] and first[0] % takes[1] == 0:
                yield f"{name} is grouped: it takes {takes[1]} of {first[0]} channels, as ResNeXt, which is not read"


def _head(weights: Weights) -> Iterator[str]:
    if "layer1.0.conv1.weight" not in weights:
        return
    behind = [name for name in weights.names() if not re.match(r"(conv1|bn1|layer\d)\.", name)]
    if any("deconv" in name for name in behind):
        yield "the network has deconvolutions behind the ResNet: it gives heatmaps, no grades"
    kernels = [name for name in behind if name.endswith("weight") and len(weights.shape(name)) > 1]
    heads = list(dict.fromkeys(name.split(".")[0][:100] for name in kernels))
    if len(heads) > 1:
        yield f"the network has several heads ({', '.join(heads[:5])}), a grader has one, called fc"
    if heads and heads != ["fc"]:
        yield f"the head is called {heads[0]}, not fc, so that it is not certain what lies before it"
    for name in behind:
        if name.endswith("running_mean"):
            yield f"the head has a batch normalisation ({name[:100]}), read are dense layers alone"
