"""Defines the convolutional backbones (section 3.2 of the paper): torchvision's ResNets, and a small network for small images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

from detr_core.config import ConfigError
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.files import read_content

Norm = Callable[[int], nn.Module]


class Backbone(nn.Module):
    """A residual network that returns the feature maps of its four stages.

    channels, strides: the values of stages 1 to 4. The network is the attribute `body`, with torchvision's names of weights, as
    in the published checkpoints.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        norm = norm_layer(config)
        if config.name.startswith("small"):
            self.body: nn.Module = SmallResNet(norm, 2 if config.name == "small_deep" else 1, config.dilation)
        else:
            self.body = _torchvision_resnet(config, norm)
        self.channels = [_out_channels(getattr(self.body, f"layer{stage}")) for stage in (1, 2, 3, 4)]
        self.strides = _strides(config)
        for module in _stem_and_stages(self.body)[: config.frozen_stages]:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the feature maps of stages 1 to 4, finest first, for images [B, 3, H, W]."""
        body = self.body
        # All maps then have this memory layout. It is faster on a CPU, by 2% in training and 3% in inference, and a GPU's fast
        # convolutions need it, which otherwise copy their input and their output.
        images = images.contiguous(memory_format=torch.channels_last)
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))  # type: ignore[operator]
        maps = []
        for stage in (1, 2, 3, 4):
            x = getattr(body, f"layer{stage}")(x)
            maps.append(x)
        return maps

    def blocks(self) -> list[nn.Module]:
        """Returns the residual blocks of all stages, in the order of their execution."""
        return [block for stage in _stem_and_stages(self.body)[1:] for block in stage.children()]


class FrozenBatchNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """Batch norm with fixed statistics, weight and bias, like torchvision's, but computed in place.

    This is possible because its input is the output of a convolution, which nothing else needs, not even the gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift()
        return x.mul_(scale[:, None, None]).add_(shift[:, None, None])

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Returns the factor and the summand of each channel, by which the norm acts."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class SmallResNet(nn.Module):
    """A residual network whose stages have the strides 3, 6, 12, 12: 96 x 96 pixels become 8 x 8 positions.

    blocks: the number of blocks per stage. dilation: stages 3 and 4 keep the stride 6 (16 x 16 positions), and dilated
    convolutions keep their receptive field.
    """

    def __init__(self, norm: Norm, blocks: int, dilation: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=3, bias=False)
        self.bn1 = norm(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        self.layer1 = _stage(16, 16, 1, norm, blocks)
        self.layer2 = _stage(16, 48, 2, norm, blocks)
        self.layer3 = _stage(48, 96, 1 if dilation else 2, norm, blocks)
        self.layer4 = _stage(96, 96, 1, norm, blocks)
        if dilation:
            for module in (*self.layer3.modules(), *self.layer4.modules()):
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    module.dilation = module.padding = (2, 2)  # torchvision's basic block has no such argument


def load_imagenet_weights(backbone: Backbone, config: BackboneConfig) -> None:
    """Loads pretrained classification weights into `backbone`: torchvision's ImageNet weights, or a local state dict.

    Raises ConfigError, which names the weights, if they can't be downloaded, don't exist or don't fit, and CheckpointError for a
    file that can't be read without running code.
    """
    if config.weights is None:
        return
    if config.weights == "imagenet":
        # The paper's backbones are torchvision's first ImageNet weights.
        weights = get_model_weights(config.name)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, HTTPException, RuntimeError) as error:  # torch.hub raises RuntimeError for a wrong checksum
            raise ConfigError(
                f"detector.backbone.weights: torchvision's ImageNet weights of {config.name} can't be downloaded ({error}); "
                "give the path of a downloaded file, or null to train from scratch"
            ) from None
    else:
        path = Path(config.weights)
        if not path.is_file():
            raise ConfigError(f"detector.backbone.weights: expected 'imagenet', null or a file, found {config.weights!r}")
        state = read_content(path, torch.device("cpu"))
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ConfigError(
                f"detector.backbone.weights: {config.weights}: expected a torchvision state dict, found other content"
            )
    expected = backbone.body.state_dict()
    state = {
        key: value for key, value in state.items() if not key.startswith("fc.") and (key in expected or "num_batches" not in key)
    }
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    misshapen = sorted(key for key in expected.keys() & state.keys() if state[key].shape != expected[key].shape)
    if missing or unknown or misshapen:
        raise ConfigError(
            f"detector.backbone.weights: {config.weights} doesn't fit {config.name}: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, with another shape {misshapen[:3]}"
        )
    backbone.body.load_state_dict(state)


def _torchvision_resnet(config: BackboneConfig, norm: Norm) -> nn.Module:
    dilation = {"replace_stride_with_dilation": [False, False, True]} if config.dilation else {}
    resnet: nn.Module = getattr(torchvision.models, config.name)(weights=None, norm_layer=norm, **dilation)
    del resnet.avgpool, resnet.fc
    return resnet


def _strides(config: BackboneConfig) -> list[int]:
    if config.name.startswith("small"):
        return [3, 6, 6, 6] if config.dilation else [3, 6, 12, 12]
    return [4, 8, 16, 16] if config.dilation else [4, 8, 16, 32]


def norm_layer(config: BackboneConfig) -> Norm:
    """Returns the constructor of the backbone's norms, which takes the number of channels."""
    if config.norm == "frozen":
        return partial(FrozenBatchNorm, eps=config.norm_eps)
    return partial(nn.GroupNorm, 8)


def _stage(channels_in: int, channels: int, stride: int, norm: Norm, blocks: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), norm(channels))
    first = BasicBlock(channels_in, channels, stride, shortcut, norm_layer=norm)
    return nn.Sequential(first, *(BasicBlock(channels, channels, norm_layer=norm) for _ in range(blocks - 1)))


def _stem_and_stages(body: nn.Module) -> list[nn.Module]:
    return [nn.ModuleList([body.conv1, body.bn1]), body.layer1, body.layer2, body.layer3, body.layer4]  # type: ignore[list-item]


def _out_channels(stage: nn.Module) -> int:
    convolutions = [module for module in stage[-1].modules() if isinstance(module, nn.Conv2d)]  # type: ignore[index]
    return convolutions[-1].out_channels
