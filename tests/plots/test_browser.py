"""The report in a headless Chromium: what the page shows, and how it reacts to clicks, read from the page's own state."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from detr_core.studies.claims import Claim, ClaimDifference, ClaimValue, PaperClaim, Verdict
from detr_core.studies.comparison import write_table
from tests.plots.stage_results import dump, write_results
from tests.plots.test_page import written
from tests.studies.test_comparison import TABLE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=10000",
)  # fmt: skip
VALUES = [ClaimValue("0", 0.30, 0.29, 0.31, 2), ClaimValue("1", 0.39, 0.38, 0.40, 2)]


def decided(text: str, verdict: Verdict, low: float | None, within: float | None = None) -> Claim:
    """Returns a claim about a difference of nine points, with this lower bound; None for one that was not measured."""
    value, high = (None, None) if low is None else (0.09, 0.11)
    difference = ClaimDifference("1 against 0", ("0", "1"), value, low, high, 2 if value else 0, None, verdict)
    reason = "" if verdict == "supported" else "the reason, in words that are as long as those of a reason usually are"
    return Claim(text, "36.7 to 41.6", "AP", VALUES, [difference, difference], verdict, reason, within)


VERDICTS = [
    decided("AP rises with the number of encoder layers", "supported", 0.07),
    decided("AP falls", "contradicted", 0.07),
    decided("AP stays", "undecided", -0.01, within=0.05),
    decided("AP is high", "not measured", None),
]
READABLE = 4.5  # to 1: WCAG's contrast of text

# Measures the page's layout and contrasts.
LAYOUT = """
<script>
const one = (query, root = document) => root.querySelector(query);
const all = (query, root = document) => [...root.querySelectorAll(query)];
const box = element => element.getBoundingClientRect();
const rgb = color => color.match(/[\\d.]+/g).map(Number);
const light = color => rgb(color).slice(0, 3).map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const ground = element => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if ((rgb(color)[3] ?? 1) === 1) return color;
  }
};
const contrast = element => {
  const style = getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
  const [low, high] = [light(ink), light(ground(element))].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
};
const texts = "h1, h2, h3, p, a, dt, dd, code, td, th, small, .tag, .verdict, thead button, svg text, footer";
const layout = () => ({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  links: all("nav a").map(link => [Math.round(box(link).left), Math.round(box(link).right)]),
  fetched: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
  ground: light(ground(document.body)),
  contrasts: all(texts).map(contrast),
  outside: all("article *").filter(each => box(each).right > innerWidth || box(each).left < 0).length,
});
"""

# Clicks as a reader does and tells the page around it what comes of it.
CLICKS = """
const ask = async () => {
  const found = layout();
  const table = all("table").find(each => one("h3", each.closest("div").parentElement)?.textContent === "By class");
  const names = () => all("tbody th", table).map(head => head.textContent), heads = all("thead button", table);
  found.orders = [names()];
  for (const head of [heads[0], heads[0], heads[1], heads[1]]) { head.click(); found.orders.push(names()); }
  found.sorted = heads[1].closest("th").getAttribute("aria-sort");

  const dialog = one("dialog");
  found.opened = [];
  for (const button of [one(".pictures button"), one(".plots button")]) {
    const small = button.firstElementChild;
    button.click();
    const large = dialog.firstElementChild;
    if (large.decode) await large.decode();
    const shown = [dialog.open, large.outerHTML === small.outerHTML, box(large).width / box(small).width];
    large.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    found.opened.push([...shown, dialog.open]);
  }
  return found;
};
"""
NO_CLICKS = "const ask = async () => layout();"
TELL = """
const tell = found => parent.postMessage(JSON.stringify(found), "*");
window.addEventListener("load", () => ask().catch(error => ({ error: error.stack })).then(tell));
</script>
</body>"""

# A window is never narrower than 500 pixels, a frame is as narrow as a phone.
FRAME = """<!doctype html>
<meta name="color-scheme" content="light dark">
<output></output>
<script>addEventListener("message", message => { document.querySelector("output").textContent = message.data; });</script>
<iframe src="{page}" width="{width}" height="900" style="border: 0"></iframe>
"""


@dataclass(frozen=True)
class Measurements:
    """The measurements that the script takes on the page.

    width: of the window, and page: of its content, in pixels. links [N, 2]: the left and right edge of each link. ground: the
    lightness of the page, 0..1. outside: the number of parts of claims that are out of sight. orders: the names in the table, at
    first and after each click. opened: for a picture and a plot, whether a click opened it, whether it was the same one, how many
    times as wide it was, and whether another click left it open.
    """

    width: int
    page: int
    links: list[tuple[int, int]]
    fetched: list[str]
    ground: float
    contrasts: list[float]
    outside: int
    orders: list[list[str]] = field(default_factory=list)
    sorted: str = ""
    opened: list[tuple[bool, bool, float, bool]] = field(default_factory=list)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the report of complete results, with a training study and one that was not run, and of the page of
    claims; each with the script that measures it."""
    folder = tmp_path_factory.mktemp("browser")
    results = write_results(folder)
    write_table(replace(TABLE, claims=VERDICTS), results.studies / "training" / "encoder-depth")
    names = {"circle": 0.2, "star": 0.4, "ring": 0.3}
    dump(results.evaluation / "per_class.json", {"bbox": names, "segm": {**names, "ring": 0.9}})
    stated = [PaperClaim(claim.text, claim.published) for claim in VERDICTS]
    text = written(results, folder / "out", claims={"encoder-depth": stated})
    asked(folder / "out" / "asked.html", text, CLICKS)
    claims = (folder / "out" / "claims.html").read_text(encoding="utf-8")
    asked(folder / "out" / "asked-claims.html", claims.replace("style-src", "script-src 'unsafe-inline'; style-src"), NO_CLICKS)
    return folder / "out"


def asked(file: Path, text: str, ask: str) -> None:
    """Writes a page with the script that measures it."""
    assert text.count("</body>") == 1
    file.write_text(text.replace("</body>", LAYOUT + ask + TELL), encoding="utf-8")


def look(page: Path, profile: Path, width: int, dark: bool) -> Measurements:
    """Returns what the script measures on the page in a window of this width, in a browser that prefers dark or light pages."""
    assert CHROMIUM is not None
    frame = page.with_name(f"{page.stem}-{width}.html")
    frame.write_text(FRAME.replace("{width}", str(width)).replace("{page}", page.name), encoding="utf-8")
    where = [f"--user-data-dir={profile}", "--window-size=1500,1000", f"--blink-settings=preferredColorScheme={int(not dark)}"]
    command = [CHROMIUM, *OPTIONS, *where, "--dump-dom", frame.as_uri()]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    answer = re.search(r"<output>(.+)</output>", output)
    assert answer is not None, output
    measurements = json.loads(html.unescape(answer[1]))
    assert "error" not in measurements, measurements["error"]
    return Measurements(**measurements)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_a_reader_sees_all_of_it_and_can_sort_and_enlarge(pages: Path, tmp_path: Path, width: int, dark: bool) -> None:
    measurements = look(pages / "asked.html", tmp_path, width, dark)
    assert measurements.width == width
    assert measurements.page == width, "the page scrolls sideways"
    assert len(measurements.links) == 8
    assert all(0 <= left < right <= width for left, right in measurements.links), "a link of the contents is out of sight"
    assert measurements.fetched == []
    assert (measurements.ground < 0.1) == dark
    assert len(measurements.contrasts) > 200
    assert min(measurements.contrasts) >= READABLE
    first, down, up = ["circle", "star", "ring"], ["circle", "ring", "star"], ["star", "ring", "circle"]
    assert measurements.orders == [first, down, up, ["star", "ring", "circle"], ["circle", "ring", "star"]]
    assert measurements.sorted == "ascending"
    for opened, same, larger, left_open in measurements.opened:
        assert (opened, same, left_open) == (True, True, False)
        assert larger > 1.3


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_a_reader_sees_all_claims(pages: Path, tmp_path: Path, width: int, dark: bool) -> None:
    measurements = look(pages / "asked-claims.html", tmp_path, width, dark)
    assert (measurements.width, measurements.page) == (width, width), "the page scrolls sideways"
    assert len(measurements.links) == 2, "the study, and how verdicts are made"
    assert all(0 <= left < right <= width for left, right in measurements.links)
    assert measurements.outside == 0, "a part of a claim is out of sight"
    assert measurements.fetched == []
    assert (measurements.ground < 0.1) == dark
    assert len(measurements.contrasts) > 80
    assert min(measurements.contrasts) >= READABLE
