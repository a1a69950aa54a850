"""Golden cases: this project must compute the same numbers as the reference implementations (`tests/golden_cases.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr_core.evaluate.average_precision import ResultKind, coco_ap
from detr_core.evaluate.boxes import postprocess_softmax
from detr_core.evaluate.config import MergingConfig
from detr_core.evaluate.masks import instance_masks
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.panoptic import kept_queries, merge
from detr_core.evaluate.panoptic_quality import panoptic_quality
from detr_core.loss.config import SoftmaxLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import Matches, match
from detr_core.model.common.config import BackboneConfig
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.panoptic_fpn.config import PanopticFpnMergingConfig
from detr_core.model.panoptic_fpn.merging import merged
from detr_core.model.transformer.config import PositionsConfig
from detr_core.model.transformer.position import SinePositions
from detr_core.structures import Target
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.loss import mask_loss, matched_masks
from tests.golden_cases import cases, close, golden_images, golden_weight


def sizes(array: np.ndarray) -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in array]


# After the model


@cases("postprocess_boxes*.npz")
def test_boxes_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    logits, boxes = torch.from_numpy(golden["pred_logits"]), torch.from_numpy(golden["pred_boxes"])
    detections = postprocess_softmax(logits, boxes, sizes(golden["sizes"]), empty_slot_override=True)
    assert len(detections) == len(logits)
    for i, image in enumerate(detections):
        close(image.scores, golden[f"scores_{i}"])
        close(image.boxes, golden[f"boxes_{i}"])
        np.testing.assert_array_equal(image.labels, golden[f"labels_{i}"])
        np.testing.assert_array_equal(image.queries, np.arange(logits.shape[1]))


@cases("postprocess_masks*.npz")
def test_instance_masks_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    processed, original = sizes(golden["processed_sizes"]), sizes(golden["original_sizes"])
    padded_size = (max(h for h, _ in processed), max(w for _, w in processed))
    for i, logits in enumerate(torch.from_numpy(golden["pred_masks"])):
        masks = instance_masks(logits, padded_size, processed[i], original[i])
        np.testing.assert_array_equal(masks, golden[f"masks_{i}"][:, 0])


@cases("postprocess_panoptic*.npz")
def test_panoptic_merging_equals_the_reference(path: Path) -> None:
    golden = np.load(path)
    logits, masks = torch.from_numpy(golden["pred_logits"]), torch.from_numpy(golden["pred_masks"])
    isthing = [label < int(golden["num_things"]) for label in range(logits.shape[-1] - 1)]
    config = MergingConfig(threshold=0.85, smallest=4, mode="published")
    segments = json.loads(str(golden["segments_info"]))
    kept, labels = kept_queries(logits, config.threshold), logits.argmax(-1)
    processed, target = sizes(golden["processed_sizes"]), sizes(golden["target_sizes"])
    for i in range(len(logits)):
        # The published code takes a mask to cover the image without padding, so that is what its numbers are to be had with.
        ours = merge(labels[i, kept[i]], masks[i, kept[i]], processed[i], processed[i], target[i], isthing, config)
        np.testing.assert_array_equal(ours[0], golden[f"id_map_{i}"])
        assert ours[1] == segments[i]


@cases("panoptic_fpn_merge*.npz")
def test_the_merging_of_panoptic_fpn_equals_the_reference(path: Path) -> None:
    golden = np.load(path)
    limits = [golden[name].item() for name in ("score_threshold", "overlap_threshold", "stuff_area_limit")]
    for i, expected in enumerate(json.loads(str(golden["segments_info"]))):
        scores, classes = golden[f"scores_{i}"], golden[f"classes_{i}"]
        ids, segments = merged(golden[f"semantic_{i}"], golden[f"masks_{i}"], scores, classes, PanopticFpnMergingConfig(*limits))
        np.testing.assert_array_equal(ids, golden[f"id_map_{i}"])
        ours = [(segment.id, segment.instance, segment.category) for segment in segments]
        assert ours == [(segment["id"], segment.get("instance_id"), segment["category_id"]) for segment in expected]
        assert [segment.area for segment in segments] == [int((ids == segment.id).sum()) for segment in segments]
        of_stuff = [segment.area for segment in segments if segment.instance is None]
        assert of_stuff == [segment["area"] for segment in expected if not segment["isthing"]]


# Metrics


@cases("ap_*/")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_equals_the_reference(path: Path, kind: ResultKind, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((path / "expected.json").read_text())
    if kind not in expected:
        pytest.skip(f"{path.name} has no metrics of {kind}")
    ours = coco_ap(path / "gt.json", path / f"{kind}.json", kind)
    assert capsys.readouterr().out == ""
    np.testing.assert_allclose([ours.metrics[name] for name in METRICS], expected[kind], rtol=0, atol=1e-10)
    oracle = pycocotools_eval(path, kind)
    np.testing.assert_allclose([ours.metrics[name] for name in METRICS], oracle.stats, rtol=0, atol=1e-10)
    names = {category["id"]: category["name"] for category in oracle.cocoGt.dataset["categories"]}
    for k, category in enumerate(oracle.params.catIds):
        precision = oracle.eval["precision"][:, :, k, 0, 2]
        if (precision > -1).any():
            assert ours.per_class[names[category]] == pytest.approx(precision[precision > -1].mean(), rel=0, abs=1e-10)
        else:
            assert names[category] not in ours.per_class


def pycocotools_eval(path: Path, kind: ResultKind) -> Any:
    truth = COCO(str(path / "gt.json"))
    oracle = COCOeval(truth, truth.loadRes(str(path / f"{kind}.json")), kind)
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    return oracle


@cases("pq_*/")
def test_panoptic_quality_equals_the_reference(path: Path) -> None:
    expected = json.loads((path / "expected.json").read_text())
    ours: dict[str, Any] = dict(panoptic_quality(path / "gt.json", path / "gt", path / "pred.json", path / "pred"))
    for part in ("all", "things", "stuff"):
        for figure, value in expected[part].items():
            assert ours[part][figure] == pytest.approx(value, rel=0, abs=1e-10)
    for category, row in expected["per_class"].items():
        # panopticapi lists a class that occurs nowhere with zeros.
        of_class = ours["per_class"].get(int(category), {"pq": 0.0, "sq": 0.0, "rq": 0.0})
        for figure, value in row.items():
            assert of_class[figure] == pytest.approx(value, rel=0, abs=1e-10)


# The model


def published_detector(golden: Any) -> Detr:
    """Returns the published architecture of a golden file."""
    backbone = BackboneConfig(str(golden["backbone"]), bool(golden["dilation"]), weights=None, norm="frozen", frozen_stages=2)
    config = DetrConfig(
        backbone,
        PositionsConfig("sine", "attention", cells=50, queries="attention", factor=1),
        width=256,
        heads=8,
        feed_forward=2048,
        encoder_layers=6,
        decoder_layers=6,
        queries=100,
        dropout=0.1,
        pre_norm=False,
        shared_heads=True,
    )
    return Detr(config, int(golden["num_classes"]), mask_head=bool(golden["panoptic"])).eval()


def published_names(model: Detr) -> list[tuple[str, str, torch.Tensor]]:
    """Yields this project's name, the published name and the value of every weight.

    A panoptic checkpoint keeps the detector under `detr.`.
    """
    own = ("bbox_attention.", "mask_head.")
    prefix = "detr." if model.has_mask_head else ""
    return [(key, key if key.startswith(own) else prefix + key, value) for key, value in model.state_dict().items()]


@cases("detr_*.npz")
@torch.inference_mode()
def test_the_outputs_of_the_model_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    model = published_detector(golden)
    model.load_state_dict({ours: golden_weight(int(golden["seed"]), name, value) for ours, name, value in published_names(model)})
    output = model(*golden_images(golden))
    close(output.logits[-1], golden["pred_logits"])
    close(output.boxes[-1], golden["pred_boxes"])
    close(output.logits[:-1, :, : golden["aux_logits"].shape[2]], golden["aux_logits"])
    close(output.boxes[:-1], golden["aux_boxes"])
    if golden["panoptic"]:
        images, queries = output.logits.shape[1:3]
        image, query = torch.arange(images).repeat_interleave(queries), torch.arange(queries).repeat(images)
        masks = model.masks(output, image, query).unflatten(0, (images, queries))
        close(masks, golden["pred_masks"])


@cases("detr_*.keys.json")
def test_names_and_shapes_equal_the_published_ones(path: Path) -> None:
    golden = np.load(path.with_name(path.name.replace(".keys.json", ".npz")))
    with torch.device("meta"):
        ours = {name: list(value.shape) for _, name, value in published_names(published_detector(golden))}
    assert ours == json.loads(path.read_text())


def detector_with_queries_at_the_input(golden: Any) -> Detr:
    """Returns the detector of row 1 or row 2 of Table 3 in a golden file."""
    config = DetrConfig(
        BackboneConfig(str(golden["backbone"]), dilation=False, weights=None, norm="frozen", frozen_stages=2),  # type: ignore[arg-type]
        PositionsConfig(str(golden["positions"]), "input", cells=50, queries="input", factor=1),  # type: ignore[arg-type]
        width=int(golden["width"]),
        heads=int(golden["heads"]),
        feed_forward=int(golden["feed_forward"]),
        encoder_layers=int(golden["encoder_layers"]),
        decoder_layers=int(golden["decoder_layers"]),
        queries=int(golden["queries"]),
        dropout=0.1,
        pre_norm=False,
        shared_heads=True,
    )
    return Detr(config, int(golden["num_classes"]), mask_head=False).eval()


@cases("positions_*.npz")
@torch.inference_mode()
def test_outputs_with_positions_and_object_queries_at_the_input_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    model = detector_with_queries_at_the_input(golden)
    names = json.loads(path.with_name(path.name.replace(".npz", ".keys.json")).read_text())
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == names
    model.load_state_dict({name: golden_weight(int(golden["seed"]), name, value) for name, value in model.state_dict().items()})
    output = model(*golden_images(golden))
    close(output.logits[-1], golden["pred_logits"])
    close(output.boxes[-1], golden["pred_boxes"])
    close(output.logits[:-1], golden["aux_logits"])
    close(output.boxes[:-1], golden["aux_boxes"])


@cases("sine_position*.npz")
def test_sine_positions_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    encoding = SinePositions(int(golden["num_pos_feats"]))(torch.from_numpy(golden["padding_mask"]))
    close(encoding, golden["encoding"])


# The loss


@cases("criterion*.npz")
def test_matching_losses_and_gradients_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    config = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    boxes = torch.from_numpy(golden["boxes"]).requires_grad_()
    layers, images, queries, _ = logits.shape
    starts = np.concatenate([[0], np.cumsum(golden["counts"])])
    targets = []
    for i in range(images):
        rows = slice(starts[i], starts[i + 1])
        masks = torch.from_numpy(golden["target_masks"][rows]) if "target_masks" in golden else None
        labels, target_boxes = torch.from_numpy(golden["labels"][rows]), torch.from_numpy(golden["target_boxes"][rows])
        targets.append(Target(i, labels, target_boxes.reshape(-1, 4), masks, (1, 1), (1, 1)))

    matches = match(logits, boxes, targets, config)
    for layer in range(layers):
        for image in range(images):
            of_pair = (matches.layer == layer) & (matches.image == image)
            pairs = torch.stack([matches.query[of_pair], matches.target[of_pair] - int(starts[image])])
            np.testing.assert_array_equal(pairs, golden[f"match_{layer}_{image}"])

    normalizer = Normalizer.of(golden["counts"].tolist(), queries, config.no_object)
    losses = set_loss(logits, boxes, targets, matches, normalizer, config)
    for name, ours in (("ce", losses.classification), ("bbox", losses.l1), ("giou", losses.giou)):
        close(ours, [golden[f"L_loss_{name}_{layer}"] for layer in range(layers - 1)] + [golden[f"L_loss_{name}"]])
    total = losses.total
    if "pred_masks" in golden:
        mask_logits = torch.from_numpy(golden["pred_masks"]).requires_grad_()
        last = matches.layer == layers - 1
        main = Matches(matches.layer[last], matches.image[last], matches.query[last], matches.target[last])
        masks = matched_masks(targets, main, golden["target_masks"].shape[-2:])
        weights = MaskLossConfig(focal=1, dice=1, alpha=0.25, gamma=2)
        focal, dice = mask_loss(mask_logits[main.image, main.query], masks, normalizer.boxes, weights)
        close(focal.detach(), golden["L_loss_mask"])
        close(dice.detach(), golden["L_loss_dice"])
        total = total + focal + dice
    close(total.detach(), golden["total"])
    total.backward()
    close(logits.grad[-1], golden["grad_logits"])
    close(boxes.grad[-1], golden["grad_boxes"])
    if "pred_masks" in golden:
        close(mask_logits.grad, golden["grad_masks"])
