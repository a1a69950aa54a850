"""Defines Faster R-CNN: torchvision's parts on this project's backbones, with anchors and pooling for any stride.

In shapes, A and R are the numbers of anchors and proposals that are sampled for the losses, over all images of a batch.
torchvision's label 0 is the background, so a class index of this project is one lower than torchvision's label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detr_core.model.common.backbone import Backbone, Norm, norm_layer
from detr_core.model.common.detector import Detector
from detr_core.model.common.host_values import marked_rows
from detr_core.model.regions.box_coder import BoxCoder
from detr_core.model.regions.config import RegionConfig
from detr_core.model.regions.parts import Anchors, Heads, Matcher, Pooling, Sampler, image_indices, truth_of
from detr_core.model.regions.proposals import best_of_levels, kept_proposals
from detr_core.structures import MAX_DETECTIONS, Padding, RegionOutput, Target

CELLS = 7  # height and width of a proposal's pooled features
HEAD_CONVOLUTIONS = 4  # of the second version's box head


@dataclass
class Samples:
    """The sampled anchors and proposals of a batch with their targets, as the losses need them.

    images: the number of images in the batch. Of the A anchors, O are objects: objectness [A]: logits. is_object [A]: 0 or 1.
    anchor_deltas, anchor_targets [O, 4]: predicted and target box deltas of the objects. anchor_boxes, anchor_target_boxes
    [O, 4]: the same boxes as xyxy in pixels. Of the R proposals, P are positive: logits [R, C+1]. labels [R]: 0 for background.
    deltas, targets [P, 4]: predicted and target box deltas of the positive proposals for their class. boxes, target_boxes [P, 4]:
    the same boxes as xyxy in pixels. anchor_image [A], object_image [O], proposal_image [R], positive_image [P]: the index of the
    image in the batch.
    """

    images: int
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
        self.roi_heads = Heads(
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
        self.rpn.proposal_matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
        self.rpn.box_coder, self.roi_heads.box_coder = BoxCoder(1, 1), BoxCoder(10, 5)
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
        labels, matched = self.rpn.assign_targets_to_anchors([anchors] * len(images), truth)
        positive, negative = self.rpn.fg_bg_sampler(labels)
        objects, background = marked_rows(torch.cat(positive), torch.cat(negative))
        sampled = torch.cat([objects, background])
        anchor_boxes, anchor_target_boxes = anchors[objects % len(anchors)], torch.cat(matched)[objects]
        anchor_deltas = anchor_deltas[objects]

        proposals, matched_targets, classes, proposal_targets = self.roi_heads.select_training_samples(proposals, truth)
        logits, deltas = self._read(maps, proposals)
        label = torch.cat(classes)
        counts = [len(boxes_of_image) for boxes_of_image in proposals]
        of_images = marked_rows(*(classes_of_image > 0 for classes_of_image in classes))
        positives = torch.cat([rows + start for rows, start in zip(of_images, accumulate(counts, initial=0), strict=False)])
        positive_counts = [len(rows) for rows in of_images]
        boxes = torch.cat(proposals)[positives]
        class_deltas = deltas.view(len(label), -1, 4)[positives, label[positives]]
        target_deltas = torch.cat(proposal_targets)[positives]
        decode = self.roi_heads.box_coder.decode_single
        samples = Samples(
            len(images),
            sampled // len(anchors),
            objectness.flatten()[sampled],
            torch.cat(labels)[sampled],
            objects // len(anchors),
            anchor_deltas,
            self.rpn.box_coder.encode_single(anchor_target_boxes, anchor_boxes),
            self.rpn.box_coder.decode_single(anchor_deltas, anchor_boxes),
            anchor_target_boxes,
            image_indices(counts, images.device),
            logits,
            label,
            image_indices(positive_counts, images.device),
            class_deltas,
            target_deltas,
            decode(class_deltas, boxes),
            decode(target_deltas, boxes),
        )
        parts = (boxes, label[positives], torch.cat(matched_targets)[positives])
        return samples, Positives(*(list(torch.split(part, positive_counts)) for part in parts))

    def _maps(self, images: Tensor) -> list[Tensor]:
        stages = self.backbone[0](images)
        maps = {str(stage): stages[stage - 1] for stage in self.config.stages}
        return [level.float() for level in self.backbone[1](maps).values()]

    def _proposals(
        self, maps: list[Tensor], images: Tensor, sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        # Returns the anchors, which are the same for each image, the objectness and deltas of the anchors of all images, and the
        # resulting proposals of each image.
        objectness, deltas = self.rpn.head(maps)
        anchors: Tensor = self.rpn.anchor_generator(ImageList(images, sizes), maps)[0]
        anchors_per_level = [math.prod(level.shape[1:]) for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        with torch.no_grad():
            scores = objectness.view(len(images), -1)
            best, levels = best_of_levels(scores, anchors_per_level, self.rpn.pre_nms_top_n())
            best_deltas = deltas.view(len(images), -1, 4).gather(1, best[..., None].expand(-1, -1, 4))
            boxes = self.rpn.box_coder.decode_single(best_deltas.flatten(0, 1), anchors[best].flatten(0, 1)).view(*best.shape, 4)
            proposals = kept_proposals(
                boxes, scores.gather(1, best).sigmoid(), levels, sizes, self.rpn.nms_thresh, self.rpn.post_nms_top_n()
            )
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
