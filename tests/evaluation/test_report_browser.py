"""The page in a browser, on a phone and on a desk.

    pip install --editable ".[dev,browser]" && apt-get install chromium
    pytest -m slow tests/evaluation/test_report_browser.py

Chromium or Chrome has to be on the PATH; Playwright's own download of a browser is not needed. Without either the tests are
skipped.
"""

import shutil

import pytest
from report_runs import write_duels, write_runs

from speechverse.evaluation import report


playwright = pytest.importorskip("playwright.sync_api", reason='needs `pip install "speechverse[browser]"`')
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium, such as `apt-get install chromium`"),
]

SIZES = {"phone": (375, 812), "small phone": (320, 568), "desk": (1280, 900)}
# Ink on its ground, as WCAG has it; grounds that are see-through are looked through.
CONTRASTS = """() => {
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const words = [...document.querySelectorAll("body *:not(svg *)")].filter(
    element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return words.map(element => {
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), element.outerHTML.slice(0, 100)];
  }).sort((one, other) => one[0] - other[0])[0];
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPORT_RUNS", str(root / "audio"))
        report.make_report(write_runs(root), root / "out")
    return (root / "out" / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])  # which root cannot have
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_page_is_readable(browser, address, size, scheme):
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.wait_for_function("[...document.querySelectorAll('audio')].every(each => each.readyState >= 1)")
    assert page.evaluate("document.querySelectorAll('audio').length") > 0
    assert page.evaluate("[...document.querySelectorAll('audio')].every(each => each.duration > 0.3 && !each.error)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth).length"
    assert bool(page.evaluate(wide)) == (size != "desk")  # tables scroll within the page, where they have to
    ratio, where = page.evaluate(CONTRASTS)
    assert ratio >= 4.5, where
    assert not complaints
    assert [url for url in requests if not url.startswith("data:")] == [address]
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_main_tables_are_narrow_however_many_systems_there_are(browser, tmp_path, size):
    report.make_report(write_duels(tmp_path), tmp_path / "out")
    page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[size], strict=True)))
    page.goto((tmp_path / "out" / "report.html").as_uri())
    main = "[...document.querySelectorAll('.results:not(.all)')].map(each => each.scrollWidth)"
    assert max(page.evaluate(main)) <= (1200 if size == "desk" else 800)
    folded = page.locator(".results.all").first
    assert not folded.is_visible()
    page.get_by_text("All systems and figures").first.click()
    assert folded.is_visible() and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_links_lead_to_what_they_name(browser, address):
    page = browser.new_page(viewport={"width": 375, "height": 812})
    page.goto(address)
    for link in page.query_selector_all("nav a"):
        link.click()
        target = page.evaluate("document.querySelector(':target')?.innerText")
        assert target == link.inner_text()
    page.close()
