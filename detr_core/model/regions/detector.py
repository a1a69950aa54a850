"""Defines Faster R-CNN: torchvision's parts on this project's backbones, with anchors and pooling for any stride.

In shapes, A and R are the numbers of anchors and proposals that are sampled for the losses, over all images of a batch.
torchvision's label 0 is the background, so a class index of this project is one lower than torchvision's label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detr_core.model.common.backbone import Backbone, Norm, norm_layer
from detr_core.model.common.detector import Detector
from detr_core.model.regions.config import RegionConfig
from detr_core.model.regions.parts import Anchors, Pooling, Sampler, image_indices, truth_of
from detr_core.structures import MAX_DETECTIONS, Padding, RegionOutput, Target

CELLS = 7  # height and width of a proposal's pooled features
HEAD_CONVOLUTIONS = 4  # of the second version's box head


@dataclass
class Samples:
    """The sampled anchors and proposals of a batch with their targets, as the losses need them.

    Of the A anchors, O are objects: objectness [A]: logits. is_object [A]: 0 or 1. anchor_deltas, anchor_targets [O, 4]:
    predicted and target box deltas of the objects. anchor_boxes, anchor_target_boxes [O, 4]: the same boxes as xyxy in
    pixels. Of the R proposals, P are positive: logits [R, C+1]. labels [R]: 0 for background. deltas, targets [P, 4]:
    predicted and target box deltas of the positive proposals for their class. boxes, target_boxes [P, 4]: the same boxes as
    xyxy in pixels. anchor_image [A], object_image [O], proposal_image [R], positive_image [P]: the index of the image in the
    batch.
    """

    anchor_image: Tensor
    objectness: Tensor
    is_object: Tensor
    object_image: Tensor
    anchor_deltas: Tensor
    anchor_targets: Tensor
    anchor_boxes: Tensor
    anchor_target_boxes: Tensor
    proposal_image: Tensor
    logits: Tensor
    labels: Tensor
    positive_image: Tensor
    deltas: Tensor
    targets: Tensor
    boxes: Tensor
    target_boxes: Tensor


@dataclass
class Positives:
    """The positive ones of the sampled proposals, with one tensor per image in each list.

    boxes [P_i, 4]: xyxy in pixels. labels [P_i]: torchvision's labels. targets [P_i]: the index of the matched object in the
    image's target.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    targets: list[Tensor]


class FasterRcnn(Detector):
    """Faster R-CNN. num_classes: the number of classes C without background. width: the number of channels of the maps."""

    config: RegionConfig
    class_heads: tuple[str, ...] = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")

    def __init__(self, config: RegionConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        backbone = Backbone(config.backbone)
        channels = [backbone.channels[stage - 1] for stage in config.stages]
        norm = norm_layer(config.backbone) if config.version == 2 else None
        self.strides = strides = [backbone.strides[stage - 1] for stage in config.stages]
        if config.width is None:
            self.backbone = nn.Sequential(backbone, nn.Identity())
            self.width = channels[0]
            anchors = Anchors((config.anchors,), strides)
        else:
            self.backbone = nn.Sequential(backbone, FeaturePyramidNetwork(channels, config.width, LastLevelMaxPool(), norm))
            self.width = config.width
            anchors = Anchors(tuple((size,) for size in config.anchors), [*strides, 2 * strides[-1]])
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(self.width, anchors.num_anchors_per_location()[0], conv_depth=config.version),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=config.sampled_anchors,
            positive_fraction=0.5,
            pre_nms_top_n=config.before_nms,
            post_nms_top_n=config.kept,
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            Pooling(strides, CELLS),
            _box_head(self.width, config.head_width, norm),
            FastRCNNPredictor(config.head_width, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.sampled_proposals,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=MAX_DETECTIONS,
        )
        self.rpn.fg_bg_sampler = Sampler(config.sampled_anchors, 0.5)
        self.roi_heads.fg_bg_sampler = Sampler(config.sampled_proposals, 0.25)

    def forward(self, images: Tensor, padding: Padding) -> RegionOutput:
        """Returns the detections in images [B, 3, H, W], normalised and zero on padding."""
        maps = self._maps(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._output(*self._detections(maps, images, list(padding.sizes)), list(padding.sizes))

    def samples(self, images: Tensor, padding: Padding, targets: list[Target]) -> Samples:
        """Returns the anchors and proposals that are sampled for the losses, with their targets.

        The samples of an image are drawn with its target's `sampling_seed` as seed. images, padding: see `forward`. The result is
        float32 even if the pyramid was computed in another dtype.
        """
        maps = self._maps(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._samples(maps, images, list(padding.sizes), targets)[0]

    def architecture(self) -> dict[str, Any]:
        return self.config.architecture()

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        labels = torch.cat([rows.new_zeros(1), rows + 1])  # 0 is the background
        values = 4 if ".bbox_pred." in name else 1  # of each class
        return trained.view(-1, values, *trained.shape[1:])[labels].flatten(0, 1)

    def _detections(
        self, maps: list[Tensor], images: Tensor, sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        # Returns boxes (xyxy in pixels), scores and torchvision's labels of the detections in each image.
        _, _, _, proposals = self._proposals(maps, images, sizes)
        logits, deltas = self._read(maps, proposals)
        boxes, scores, labels = self.roi_heads.postprocess_detections(logits, deltas, proposals, sizes)
        return boxes, scores, labels

    @staticmethod
    def _output(boxes: list[Tensor], scores: list[Tensor], labels: list[Tensor], sizes: list[tuple[int, int]]) -> RegionOutput:
        relative = [box / box.new_tensor([w, h, w, h]) for box, (h, w) in zip(boxes, sizes, strict=True)]
        return RegionOutput(relative, scores, [label - 1 for label in labels])

    def _samples(
        self, maps: list[Tensor], images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]
    ) -> tuple[Samples, Positives]:
        for offset, sampler in enumerate((self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler)):
            sampler.seeds = [(target.sampling_seed + offset) % 2**63 for target in targets]
        truth = [truth_of(target, size) for target, size in zip(targets, sizes, strict=True)]
        anchors, objectness, anchor_deltas, proposals = self._proposals(maps, images, sizes)
        labels, matched = self.rpn.assign_targets_to_anchors(anchors, truth)
        anchor_targets = torch.cat(self.rpn.box_coder.encode(matched, anchors))
        positive, negative = self.rpn.fg_bg_sampler(labels)
        objects = torch.cat(positive).nonzero()[:, 0]
        sampled = torch.cat([objects, torch.cat(negative).nonzero()[:, 0]])
        image_of_anchor = image_indices([len(boxes_of_image) for boxes_of_image in anchors], images.device)

        proposals, matched_targets, classes, proposal_targets = self.roi_heads.select_training_samples(proposals, truth)
        logits, deltas = self._read(maps, proposals)
        label, boxes = torch.cat(classes), torch.cat(proposals)
        positives = label.nonzero()[:, 0]
        class_deltas = deltas.view(len(label), -1, 4)[positives, label[positives]]
        target_deltas = torch.cat(proposal_targets)[positives]
        decode = self.roi_heads.box_coder.decode_single
        image_of_proposal = image_indices([len(boxes_of_image) for boxes_of_image in proposals], images.device)
        samples = Samples(
            image_of_anchor[sampled],
            objectness.flatten()[sampled],
            torch.cat(labels)[sampled],
            image_of_anchor[objects],
            anchor_deltas[objects],
            anchor_targets[objects],
            self.rpn.box_coder.decode_single(anchor_deltas[objects], torch.cat(anchors)[objects]),
            torch.cat(matched)[objects],
            image_of_proposal,
            logits,
            label,
            image_of_proposal[positives],
            class_deltas,
            target_deltas,
            decode(class_deltas, boxes[positives]),
            decode(target_deltas, boxes[positives]),
        )
        positive = [class_indices > 0 for class_indices in classes]
        lists = (
            [part[mask] for part, mask in zip(parts, positive, strict=True)] for parts in (proposals, classes, matched_targets)
        )
        return samples, Positives(*lists)

    def _maps(self, images: Tensor) -> list[Tensor]:
        stages = self.backbone[0](images)
        maps = {str(stage): stages[stage - 1] for stage in self.config.stages}
        return [level.float() for level in self.backbone[1](maps).values()]

    def _proposals(
        self, maps: list[Tensor], images: Tensor, sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
        # Returns the anchors of each image, the objectness and deltas of all anchors, and the resulting proposals of each image.
        objectness, deltas = self.rpn.head(maps)
        anchors = self.rpn.anchor_generator(ImageList(images, sizes), maps)
        anchors_per_level = [math.prod(level.shape[1:]) for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = self.rpn.box_coder.decode(deltas.detach(), anchors).view(len(images), -1, 4)
        proposals, _ = self.rpn.filter_proposals(boxes, objectness, sizes, anchors_per_level)
        return anchors, objectness, deltas, proposals

    def _read(self, maps: list[Tensor], proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        # Returns class logits [R, C+1] and deltas [R, 4 (C+1)] of the proposals of all images.
        pooled = self.roi_heads.box_roi_pool(maps[: len(self.config.stages)], proposals)
        return cast(tuple[Tensor, Tensor], self.roi_heads.box_predictor(self.roi_heads.box_head(pooled)))


def _box_head(width: int, hidden: int, norm: Norm | None) -> nn.Module:
    # Returns torchvision's box head, whose second version has norms.
    if norm is None:
        return cast(nn.Module, TwoMLPHead(width * CELLS**2, hidden))
    return cast(nn.Module, FastRCNNConvFCHead((width, CELLS, CELLS), [width] * HEAD_CONVOLUTIONS, [hidden], norm))
