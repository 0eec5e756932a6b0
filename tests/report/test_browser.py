"""The page in a real Chromium: what is drawn, what is coloured, and that nothing in it runs."""

import shutil

import pytest

from debate_rl.game.transcript import Origin, read_speech
from debate_rl.records import read, write
from debate_rl.report import write_report

pytestmark = pytest.mark.browser

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
HOSTILE = (
    "<script>window.owned = 1; document.title = 'owned'</script><img src=x onerror='window.owned = 2'></div> "
    "<quote>the pipe was moved to the {place} at</quote> <quote>ines buried it at sea</quote>"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver; on Debian: apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def opened(browser, run_folder, made, tmp_path_factory):
    """The page of a whole run in which one debate is hostile; shown at desktop width."""
    from debate_rl.game.verdict import JudgedDebate

    run = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(run_folder, run)
    path = run / "oversight" / "debates.jsonl"
    legs = []
    for leg in read(path, JudgedDebate):
        game = leg.transcript
        said = HOSTILE.replace("{place}", game.question.answers[0])
        speeches = [read_speech(said, game, s.side, s.turn, Origin(player="dpo")) for s in game.speeches]
        legs.append(leg.model_copy(update={"transcript": game.model_copy(update={"speeches": tuple(speeches)})}))
    write(path, legs)
    browser.get(write_report(run, run / "report").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")
    return browser


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(found => found.textContent.trim())", selector
    )


def test_headings_and_leaderboard(opened):
    assert opened.title == "made \u00b7 debate-rl"
    assert texts(opened, "h2") == [
        "Effects", "Leaderboard", "Judge accuracy by protocol", "Judge calibration", "Weak-to-strong",
        "Behaviour of the debaters", "Training", "Transcripts", "Failed legs", "Costs", "Config",
    ]  # fmt: skip
    assert sorted(texts(opened, ".leaderboard tbody th")) == ["base", "dpo", "sft"]


def test_figures_have_size_and_their_marks_and_words_lie_inside(opened):
    outside = opened.execute_script("""
        const figures = [...document.querySelectorAll('svg.plot')];
        const wrong = figures.filter(figure => {
            const box = figure.getBoundingClientRect();
            const marks = [...figure.querySelectorAll('.role-mark path, text')];
            return box.width < 100 || box.height < 40 || marks.length < 5 || marks.some(mark => {
                const at = mark.getBoundingClientRect();
                // The browser's font may be wider than the one that the figure was laid out with.
                return at.left < box.left - 30 || at.right > box.right + 30
                    || at.top < box.top - 4 || at.bottom > box.bottom + 4;
            });
        });
        return [figures.length, wrong.map(figure => figure.querySelector('title').textContent)];
    """)
    assert outside == [19, []]


@pytest.mark.parametrize("dark", [False, True])
def test_figures_take_the_colours_of_the_scheme(opened, dark):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    ink, page = opened.execute_script("""
        return [getComputedStyle(document.querySelector('svg.plot .role-title text')).fill,
                getComputedStyle(document.body).color];
    """)
    assert ink == page


def test_quotes_have_three_colours_on_readable_ground(opened):
    colours = opened.execute_script("""
        return ['exact', 'near', 'invalid'].map(look =>
            getComputedStyle(document.querySelector('.speech mark.' + look)).backgroundColor)
    """)
    assert len(set(colours)) == 3
    assert "rgba(0, 0, 0, 0)" not in colours


def test_speeches_stand_beside_the_passage(opened):
    left, right = opened.execute_script("""
        const debate = document.querySelector('.debate');
        return ['.speeches', '.passage'].map(part => debate.querySelector(part).getBoundingClientRect().toJSON());
    """)
    assert left["right"] < right["left"] and abs(left["top"] - right["top"]) < 20


def test_number_of_a_quote_leads_to_its_passage(opened):
    targets = opened.execute_script("""
        const links = [...document.querySelectorAll('.speech sup a')];
        return links.map(link => document.querySelector(link.getAttribute('href')) !== null);
    """)
    assert targets and all(targets)


def test_nothing_ran_and_nothing_was_refused(opened):
    assert opened.execute_script("return window.owned === undefined && document.scripts.length === 0")
    assert opened.title == "made \u00b7 debate-rl"
    assert any("window.owned = 1" in text for text in texts(opened, ".speech .text"))
    assert opened.execute_script("return document.querySelectorAll('img').length") == 0
    assert opened.get_log("browser") == []
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_in_light_and_dark(opened, dark):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    low = opened.execute_script("""
        const light = colour => {
            const part = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255).map(v =>
                v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
        };
        const ground = found => {
            for (; found; found = found.parentElement) {
                const colour = getComputedStyle(found).backgroundColor;
                if (colour !== 'rgba(0, 0, 0, 0)') return colour;
            }
            return 'rgb(255, 255, 255)';
        };
        const shown = document.querySelectorAll('p, td, th, dt, dd, a, mark, summary, figcaption, .text, sup');
        return [...shown].map(found => {
            const pair = [light(getComputedStyle(found).color), light(ground(found))].sort((a, b) => a - b);
            return [(pair[1] + 0.05) / (pair[0] + 0.05), found.tagName + '.' + found.className];
        }).filter(found => found[0] < 4.5).slice(0, 5);
    """)
    assert low == []


def test_phone_shows_one_column_and_never_scrolls_sideways(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 375
        tops = opened.execute_script("""
            const debate = document.querySelector('.debate');
            return ['.speeches', '.passage'].map(part => debate.querySelector(part).getBoundingClientRect().top);
        """)
        assert tops[0] < tops[1]
        smallest = opened.execute_script("""
            return Math.min(...[...document.querySelectorAll('svg.plot text')].map(text =>
                parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))
        """)
        assert smallest > 9
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
