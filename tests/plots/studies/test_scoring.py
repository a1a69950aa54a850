"""The plots of the study `scoring` are drawn from files alone, and its sentence states the measured values."""

from pathlib import Path

from detr_core.evaluate.metric_names import METRICS
from detr_core.plots.studies.scoring import conclusion, plots, read_scores
from detr_core.studies.measurements.scoring import Selection, write_scores


def write(folder: Path) -> Path:
    results = []
    for override, ap in ((True, 0.42), (False, 0.40)):
        for threshold, f1 in ((0.5, 0.6), (0.0, 0.3), (0.9, 0.5)):
            metrics = dict.fromkeys((*METRICS, "precision", "recall", "F1"), 0.5)
            results.append(Selection(override, threshold, metrics | {"AP": ap - threshold / 10, "F1": f1}))
    write_scores(results, folder)
    return folder / "scores.json"


def test_the_plots_need_only_files(tmp_path: Path) -> None:
    scores = write(tmp_path)
    files = plots(tmp_path, tmp_path)
    assert [file.name for file in files] == ["scoring_AP.svg", "scoring_AP.png", "scoring_precision.svg", "scoring_precision.png"]
    assert "AP50, without empty slots" in files[0].read_text()
    assert list(read_scores(scores)[True]) == [0.0, 0.5, 0.9]


def test_the_conclusion_follows_from_the_metrics(tmp_path: Path) -> None:
    assert conclusion(read_scores(write(tmp_path))) == (
        "Scoring empty slots by their second-best class changes AP by +2.0 (from 40.0 to 42.0); F1 at IoU 0.5 is best, 60.0, at "
        "score 0.5, which changes AP by −5.0."
    )
