"""Every kind of detector uses the same checkpoints and the same evaluation; unsupported operations raise clear errors."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.evaluate.boxes import in_one_row, postprocess
from detr_core.evaluate.config import EvaluateConfig, MergingConfig
from detr_core.evaluate.predictions import average_precision_of, evaluate, predict
from detr_core.model.checkpoint import Checkpoint, CheckpointError, export_checkpoint, load_checkpoint, save_checkpoint
from detr_core.model.common.detector import Detector
from detr_core.model.common.normalisation import normalise
from detr_core.model.spec import build_detector, detector_config
from detr_core.reporter import Silent
from detr_core.structures import Padding, RegionOutput, SigmoidOutput, SoftmaxOutput
from detr_core.studies.evaluating.decoder_nms import CLAIMS
from detr_core.studies.measurements.decoder_nms import decoder_nms
from flows.tracking.detector_model import DetectorModel
from tests.kinds import RECIPES
from tests.tiny_detector import CPU, detector, evaluation_data, isthing_of, study_inputs

CONFIG = EvaluateConfig(4, None, True, MergingConfig(threshold=0.6, smallest=4, mode="published"))


def sure(kind: str, dataset: CocoDataset) -> Detector:
    """Returns an untrained detector of this kind whose scores are spread between 0 and 1."""
    torch.manual_seed(1)
    model = build_detector(
        detector_config(RECIPES[kind]["detector"], "tiny"), len(dataset.categories), isthing=isthing_of(dataset)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("class_embed") or "cls_score" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("kind", RECIPES)
def test_files_hold_what_validation_measures(kind: str, dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    model = sure(kind, dataset)
    predict(Checkpoint(model, dataset.categories, {}), evaluation_data(dataset), CONFIG, tmp_path)
    maps = {"segm.json", "panoptic.json", "panoptic"}
    masks = {"mask_rcnn": {"segm.json"}, "panoptic_fpn": maps, "upsnet": maps}
    assert {path.name for path in tmp_path.iterdir()} == {"bbox.json"} | masks.get(kind, set())
    results = json.loads((tmp_path / "bbox.json").read_text())
    things = {category.id for category in dataset.categories if category.isthing}
    assert len(results) > 0
    assert {result["category_id"] for result in results} <= things
    metrics = evaluate(tmp_path, split)
    in_memory = average_precision_of(model, dataset.categories, evaluation_data(dataset))
    assert {name: metrics[f"val/{name}"] for name in in_memory} == pytest.approx(in_memory)


@pytest.mark.parametrize("kind", RECIPES)
def test_a_saved_detector_gives_the_same_detections(kind: str, dataset: CocoDataset, tmp_path: Path) -> None:
    model = sure(kind, dataset)
    save_checkpoint(tmp_path / "a.pt", model, dataset.categories, {"profile": "tiny"})
    loaded = load_checkpoint(tmp_path / "a.pt", CPU)
    assert loaded.model.config == model.config
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    padding = Padding.none(1, (64, 64), CPU)
    with torch.inference_mode():
        ours, theirs = (network(normalise(pixels, padding), padding) for network in (model, loaded.model))
    (one,), (other,) = postprocess(ours, [(64, 64)], True), postprocess(theirs, [(64, 64)], True)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.boxes, other.boxes)
    with pytest.raises((CheckpointError, ConfigError), match=r"supports|no layout from elsewhere"):
        export_checkpoint(loaded, tmp_path / "elsewhere.pth")
    assert not (tmp_path / "elsewhere.pth").exists()
    prediction = DetectorModel(loaded, CONFIG, CPU).predict(pixels[0].permute(1, 2, 0).numpy())
    assert (prediction["scores"][:-1] >= prediction["scores"][1:]).all()
    assert len(prediction["boxes"]) == len(one.scores)


def test_a_query_may_count_with_several_classes() -> None:
    logits = torch.tensor([[[[3.0, -1.0, 2.0], [0.0, -9.0, -9.0]]]])
    boxes = torch.tensor([[[[0.5, 0.5, 1.0, 0.5], [0.25, 0.75, 0.5, 0.5]]]])
    (image,) = postprocess(SigmoidOutput(logits, boxes), [(100, 200)], empty_slot_override=True)
    assert image.queries.tolist()[:3] == [0, 0, 1]
    assert image.labels.tolist()[:3] == [0, 2, 0]
    torch.testing.assert_close(image.scores[:3], torch.tensor([3.0, 2.0, 0.0]).sigmoid())
    torch.testing.assert_close(image.boxes[:3], torch.tensor([[0.0, 25, 200, 75], [0, 25, 200, 75], [0, 50, 100, 100]]))


def test_no_more_detections_than_average_precision_looks_at() -> None:
    output = SigmoidOutput(torch.randn(1, 2, 50, 9), torch.rand(1, 2, 50, 4))
    assert [len(image.scores) for image in postprocess(output, [(10, 10)] * 2, True)] == [100, 100]


def test_a_batch_in_one_row_is_what_its_images_are_one_by_one() -> None:
    boxes, sizes = torch.rand(2, 3, 7, 4), [(100, 200), (50, 40), (64, 64)]
    nothing = torch.zeros(3, 8, 1, 1)
    outputs = (
        SoftmaxOutput(torch.randn(2, 3, 7, 5), boxes, nothing, nothing, nothing, nothing),
        SigmoidOutput(torch.randn(2, 3, 7, 5), boxes),
    )
    for output, layer in itertools.product(outputs, (0, -1)):
        row, images = in_one_row(output, sizes, layer), postprocess(output, sizes, empty_slot_override=True, layer=layer)
        for name in ("scores", "labels", "boxes", "queries"):
            assert torch.equal(getattr(row, name), torch.cat([getattr(image, name) for image in images]))


def test_an_image_without_regions_has_empty_results() -> None:
    nothing = RegionOutput([torch.zeros(0, 4)], [torch.zeros(0)], [torch.zeros(0, dtype=torch.int64)])
    (image,) = postprocess(nothing, [(10, 20)], empty_slot_override=True)
    assert image.boxes.shape == (0, 4)
    assert image.queries.shape == (0,)


def test_decoder_nms_asks_for_decoder_layers(dataset: CocoDataset, split: Split) -> None:
    assert split.instances is not None
    model = sure("deformable", dataset)
    cells = decoder_nms(study_inputs(model, split, Silent()), dataset, (None, 0.5), batch_size=4, claims=CLAIMS).cells
    assert [(cell.decoder_depth, cell.nms) for cell in cells] == [(1, None), (1, 0.5), (2, None), (2, 0.5)]
    metrics = average_precision_of(model, dataset.categories, evaluation_data(dataset))
    assert cells[2].metrics == pytest.approx(metrics)
    with pytest.raises(ValueError, match=re.escape("expected a checkpoint of a detector with decoder layers, found kind")):
        decoder_nms(
            study_inputs(sure("faster_rcnn", dataset), split, Silent()), dataset, (None, 0.5), batch_size=4, claims=CLAIMS
        )


def test_a_checkpoint_without_a_kind_is_a_detr(dataset: CocoDataset, tmp_path: Path) -> None:
    model = detector(dataset.categories, mask_head=True)
    save_checkpoint(tmp_path / "a.pt", model, dataset.categories, {})
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["detector"]["kind"]
    torch.save(content, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", CPU).model
    assert loaded.config == model.config
    assert loaded.has_mask_head
