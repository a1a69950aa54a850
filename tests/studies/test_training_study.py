"""The configuration of a study that trains."""

import pytest

from detr_core.config import ConfigError, build
from detr_core.studies.training import GridStudyConfig, NamedStudyConfig, training_kind

DEPTHS = {"detector.encoder_layers": [0, 1]}
LOSSES: dict[str, dict[str, int]] = {"all": {}, "no L1": {"a.l1": 0}}
GRID = {"paper": "Table 2", "base": "1", "seeds": [0], "median_of": 1, "set": {}, "vary": DEPTHS}
NAMED = {"paper": "Table 4", "base": "all", "seeds": [0, 1], "median_of": 1, "set": {}, "variants": LOSSES}


def grid(**changes: object) -> GridStudyConfig:
    return build(GridStudyConfig, GRID | changes, "p.yaml")


def named(**changes: object) -> NamedStudyConfig:
    return build(NamedStudyConfig, NAMED | changes, "p.yaml")


def test_a_grid_is_every_combination_named_after_what_varies() -> None:
    assert grid().overrides() == {"0": {"detector.encoder_layers": 0}, "1": {"detector.encoder_layers": 1}}
    both = grid(vary={"detector.width": [32, 64], "detector.pre_norm": [True, False]}, base="width=64,pre_norm=false")
    assert list(both.overrides()) == [
        "width=32,pre_norm=true", "width=32,pre_norm=false", "width=64,pre_norm=true", "width=64,pre_norm=false",
    ]  # fmt: skip
    assert both.overrides()["width=32,pre_norm=false"] == {"detector.width": 32, "detector.pre_norm": False}
    assert both.varied == ["detector.width", "detector.pre_norm"]


def test_a_study_trains_mask_heads_if_it_sets_or_varies_train_panoptic() -> None:
    assert not grid().trains_masks
    assert grid(set={"train_panoptic.epochs": 1}).trains_masks
    assert named(variants={"all": {}, "focal": {"train_panoptic.loss.dice": 0}}).trains_masks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "2"}, "p.yaml: base: expected one of the variants '0', '1', found '2'"),
        ({"seeds": []}, "p.yaml: seeds: expected one or more, found []"),
        ({"seeds": [1, 1]}, "p.yaml: seeds: expected each seed once, found [1, 1]"),
        ({"vary": {"detector.encoder_layers": [1]}}, "p.yaml: vary: expected two variants or more, found ['1']"),
        ({"vary": {}}, "p.yaml: vary: expected two variants or more, found []"),
        ({"vary": {"a.weights": ["1", "../x"]}}, "p.yaml: vary: expected names of letters"),
        ({"measure": ["scoring", "scoring"]}, "p.yaml: measure: expected each study once, found ['scoring', 'scoring']"),
        (
            {"claims": [{"text": "a", "published": "b", "metric": "APx", "highest": "1"}]},
            "p.yaml: claims[0].metric: expected one of AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, mask/AP",
        ),
        ({"sett": {}}, "p.yaml: sett: unknown key; did you mean 'set'?"),
    ],
)
def test_an_invalid_study_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        grid(**changes)
    assert str(raised.value).startswith(message)


def test_a_study_is_a_grid_or_has_named_variants() -> None:
    assert training_kind("encoder-depth", GRID) is GridStudyConfig
    assert training_kind("losses", NAMED) is NamedStudyConfig
