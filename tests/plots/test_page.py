"""The report is one page that needs no other file, shows the measured metrics, and marks published ones as such."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from detr_core.coco import coco_categories, is_coco
from detr_core.plots.claims import ProfileStudies
from detr_core.plots.report import ReportError, write_report
from detr_core.structures import Category
from detr_core.studies.claims import Comparison, MeasuredClaim, PaperClaim, SeedDifference, write_measured
from tests.plots.stage_results import Results, dump, write_results

LINKS = {"git commit": "0123abc", "MLflow": "http://127.0.0.1:5000/#/x?a=1&b=2", "parameters": "a: 1\nb: 2"}
COMMANDS = {
    "decoder-nms": "python -m flows.studies decoder-nms --profile tiny",
    "feed-forward": "python -m flows.studies feed-forward --profile tiny",
}
Claims = Mapping[str, Sequence[PaperClaim]]
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """Parses a page: that its elements nest, its addresses, its table rows, and its text by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.rows: list[tuple[str, list[str]]] = []  # (the tbody's class, cells)
        self.body = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tbody":
            self.body = named["class"] or ""
        if tag == "tr" and self.open[-2] == "tbody":
            self.rows.append((self.body, []))
        if tag in ("td", "th") and "tbody" in self.open:
            self.rows[-1][1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tbody" in self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][1][-1] += data


def written(results: Results, out: Path, links: Mapping[str, str] = LINKS, claims: Claims | None = None) -> str:
    """Returns the page about these results. claims: study -> the claims of the paper that it decides."""
    path = write_report(results, out, pictures=2, links=links, studies=ProfileStudies(COMMANDS, claims or {}))
    assert path == out / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the page of complete results."""
    folder = tmp_path_factory.mktemp("page")
    return written(write_results(folder), folder / "out")


def test_the_page_stands_alone_and_is_the_same_each_time(text: str, results: Results, tmp_path: Path) -> None:
    page = Page(text)
    assert sorted(set(page.ids)) == sorted(page.ids)
    outside = [address for address in page.addresses if not address.startswith(("data:image/jpeg;base64,", "#"))]
    assert outside == [LINKS["MLflow"]]
    assert not re.search(r"@import|url\((?!#)", text)
    assert text.count('src="data:') == 4
    assert text == written(results, tmp_path / "again")


def test_measured_metrics_are_shown_apart_from_published_ones(text: str) -> None:
    rows = Page(text).rows
    measured = [cells for body, cells in rows if body == "measured"]
    published = [cells for body, cells in rows if body == "published"]
    assert ["AP", "50.0", "40.0"] in measured
    assert ["APl", "–", "40.0"] in measured
    assert ["ARl", "61.0", "40.0"] in measured
    assert ["circle", "70.0", "60.0"] in measured
    assert ["star", "–", "30.0"] in measured
    assert ["Miss", "2.1", "1,234", "2.1", "1,234"] in measured
    assert ["things", "61.0", "61.0", "61.0"] in measured
    assert ["sky", "90.0", "95.0", "96.0"] in measured
    assert ["1", "52.4", "53.2", "52.0", "52.4", "53.2", "52.0"] in measured
    assert ["AP, first layer to last", "+3.1", "+8.2"] in measured
    assert ["AP, NMS 0.5 at the last layer", "−1.0", "−0.8"] in measured
    assert [row[0] for row in published] == ["with", "without"], (
        "only of a study without results, because the data are not COCO's"
    )


def test_published_metrics_stand_beside_those_of_a_detector_on_coco(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detr_core.plots.report.is_coco", lambda categories: True)
    rows = Page(written(results, tmp_path / "out")).rows
    measured = [cells for body, cells in rows if body == "measured"]
    published = [cells for body, cells in rows if body == "published"]
    assert ["tiny", "50.0", "51.0", "52.0", "53.0", "54.0", "–"] in measured
    assert ["DETR", "42.0", "62.4", "44.2", "20.5", "45.8", "61.1"] in published
    assert ["DETR-R101", "45.1", "79.9", "55.5", "50.5", "80.9", "61.7", "37.0", "78.5", "46.0", "33.0"] in published
    assert not [cells for cells in measured if "DETR" in cells[0]]


def test_a_dataset_is_coco_by_its_things() -> None:
    things = [category for category in coco_categories().values() if category.isthing]
    assert len(things) == 80
    assert is_coco(coco_categories().values())
    assert is_coco(things)
    assert not is_coco(things[:1])
    assert not is_coco([])
    assert not is_coco([Category(1, "corn", True)])


def test_a_full_bar_is_a_hundred_percent(results: Results, tmp_path: Path) -> None:
    dump(results.evaluation / "per_class.json", {"bbox": {"corn": 0.003}})
    assert 'style="--share:0.0030"' in written(results, tmp_path / "out")


def test_the_page_says_what_was_trained_and_where_it_comes_from(text: str) -> None:
    assert "a detector for 200 steps (2 epochs), then a mask head on the frozen detector for 200 steps (2 epochs)" in text
    assert "3 validation images with 4 classes of things and 3 of stuff" in text
    assert "Without NMS, AP rises from 52.4 after decoder layer 1 to 55.5 after layer 2 (+3.1)" in text
    assert "0123abc" in text
    assert (
        '<a href="http://127.0.0.1:5000/#/x?a=1&amp;b=2" title="http://127.0.0.1:5000/#/x?a=1&amp;b=2">127.0.0.1:5000/#/x</a>'
        in text
    )
    assert "<pre>a: 1\nb: 2</pre>" in text


def test_the_page_says_how_to_run_the_studies_that_have_not_been(text: str) -> None:
    assert text.count("<code>") == 1
    assert f"<dt>Feed forward</dt>\n<dd><code>{COMMANDS['feed-forward']}</code></dd>" in text


def test_the_page_of_claims_has_every_claim_and_is_linked_from_the_report(results: Results, tmp_path: Path) -> None:
    stated = {
        "decoder-nms": [PaperClaim("AP rises with <every> layer", "AP +8.2")],
        "feed-forward": [PaperClaim("FFNs help", "AP 2.3")],
    }
    difference = SeedDifference(0.524, 0.555, 0.021, 0.041)
    comparison = Comparison("layer 2 against layer 1", difference, ("layer 1", "layer 2"))
    measured = MeasuredClaim("AP rises with <every> layer", "AP +8.2", "AP", [comparison])
    write_measured([measured], results.studies / "evaluating" / "decoder-nms")
    report = Page(written(results, tmp_path / "out", claims=stated))
    beside = [address for address in report.addresses if not address.startswith(("data:", "#", "http"))]
    assert beside == ["claims.html", "claims.html", "claims.html#study-decoder-nms"], "the top, the section, the study"
    text = (tmp_path / "out" / "claims.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.ids == ["contents", "study-decoder-nms", "study-feed-forward", "method"]
    assert [address for address in page.addresses if not address.startswith("#")] == ["index.html"]
    assert page.rows == [
        ("values", ["layer 1", "52.4", "1"]),
        ("values", ["layer 2", "55.5", "1"]),
        ("differences", ["layer 2 against layer 1", "+3.1", "+2.1 to +4.1\n"]),
    ]
    assert "AP rises with &lt;every&gt; layer" in text
    assert "<dt>published</dt><dd>AP +8.2</dd>" in text
    assert "undecided at this budget" in text
    assert "95% interval over the validation images" in text
    assert "the study was not run" in text
    for study in stated:
        assert f"<code>{COMMANDS[study]}</code>" in text
    assert written(results, tmp_path / "again", claims=stated)
    assert (tmp_path / "again" / "claims.html").read_text(encoding="utf-8") == text


def test_a_ratio_is_shown_as_it_is_and_what_has_no_interval_says_so(results: Results, tmp_path: Path) -> None:
    comparison = Comparison("its own object against others", SeedDifference(1.1, 2.5, None, None), ("others", "own"), 1)
    claim = MeasuredClaim("Instances are separated", "pictures", "attention", [comparison], percent=False)
    folder = results.studies / "evaluating" / "encoder-attention"
    folder.mkdir()
    write_measured([claim], folder)
    written(results, tmp_path / "out", claims={"encoder-attention": [PaperClaim(claim.text, claim.published)]})
    text = (tmp_path / "out" / "claims.html").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in cells] for _, cells in Page(text).rows]
    assert rows == [["others", "1.10", "1"], ["own", "2.50", "1"], ["its own object against others", "+1.40", "none"]]
    assert "1 validation image cannot show how much the choice of the validation images changes the difference" in text


def test_without_claims_there_is_no_page_of_them(results: Results, tmp_path: Path) -> None:
    assert "claims.html" not in written(results, tmp_path / "out")
    assert not (tmp_path / "out" / "claims.html").exists()


def test_what_is_missing_is_left_out(results: Results, tmp_path: Path) -> None:
    for folder in (results.panoptic, results.studies, results.detection):
        shutil.rmtree(folder)
    for name in ("errors.json", "per_class.json", "panoptic.json", "bbox.json"):
        (results.evaluation / name).unlink()
    dump(results.evaluation / "metrics.json", {"val/AP": 0.123})
    page = Page(written(results, tmp_path / "out", links={}))
    assert page.ids == ["contents", "detection", "studies-not-run"]
    assert ("measured", ["AP", "12.3"]) in page.rows
    published = [cells for group, cells in page.rows if group == "published"]
    assert ["without", "38.3", "–", "–", "–", "–", "28.7"] in published, "of a study that was not run"
    assert list((tmp_path / "out" / "plots").iterdir()) == []


def test_masks_of_instances_have_a_section_of_their_own(results: Results, tmp_path: Path) -> None:
    for name in ("panoptic.json", "per_class.json"):
        (results.evaluation / name).unlink()
    metrics = json.loads((results.evaluation / "metrics.json").read_text())
    dump(
        results.evaluation / "metrics.json",
        {name: value for name, value in metrics.items() if name[4:6] not in ("PQ", "SQ", "RQ")},
    )
    history = [{"step": step, "epoch": 1, "train/loss": 1, "train/giou": 1, "val/mask/AP": 0.1} for step in (100, 200)]
    (results.panoptic / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    text = written(results, tmp_path / "out")
    page = Page(text)
    assert "masks" in page.ids
    assert "panoptic" not in page.ids
    assert "then a mask head jointly with the detector for 200 steps" in text
    assert ("measured", ["AP", "50.0", "40.0"]) in [(body, [cells[0][:2], *cells[1:]]) for body, cells in page.rows]
    assert {"panoptic_validation.png", "panoptic_loss.png"} <= {file.name for file in (tmp_path / "out/plots").iterdir()}


def test_without_metrics_no_page_is_written(results: Results, tmp_path: Path) -> None:
    (results.evaluation / "metrics.json").unlink()
    with pytest.raises(
        ReportError, match=r"metrics\.json: expected an evaluation's metrics, found no such file; run the stage evaluate"
    ):
        written(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_from_a_dataset_stay_text(results: Results, tmp_path: Path) -> None:
    shutil.rmtree(results.studies)
    dump(results.evaluation / "per_class.json", {"bbox": {"<script>alert(1)</script>": 0.5}})
    text = written(results, tmp_path / "out", links={"x": "javascript:alert(1)"})
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert not [address for address in Page(text).addresses if address.startswith("javascript")]
