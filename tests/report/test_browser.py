"""The page in a real Chromium: what is drawn, what is coloured, and that nothing in it runs."""

import shutil

import pytest

from debate_rl.game.transcript import JudgeQuestion, Origin, read_speech
from debate_rl.records import read, write
from debate_rl.report import write_report
from tests.chromium import open_chromium

pytestmark = pytest.mark.browser

HOSTILE = (
    "\u202e<script>window.owned = 1; document.title = 'owned'</script><img src=x onerror='window.owned = 2'></div> "
    "<quote>the pipe was moved to the {place} at</quote> <quote>ines buried it at sea</quote>"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = open_chromium(tmp_path_factory.mktemp("profile"), "1200,900")
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
        asked = JudgeQuestion(turn=0, text=f"Why? {HOSTILE}", origin=Origin(player="judge", model="lab-small"))
        changes = {"speeches": tuple(speeches), "asked": (asked,) if speeches else ()}
        legs.append(leg.model_copy(update={"transcript": game.model_copy(update=changes)}))
    write(path, legs)
    page = write_report(run, run / "report").as_uri()
    browser.get(page)
    browser.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")
    browser.page = page
    return browser


def until(browser, script, *values):
    """Wait for a script's answer that is not empty; a busy machine may need long."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(f"return {script}", *values))


def go_to(browser, address):
    """Follow a link of the page, and wait until the table or the debate is there."""
    browser.execute_script("document.querySelector('dialog').close()")
    browser.execute_script("location.hash = arguments[0]", address)
    shown = "document.querySelector('.found').textContent.includes(' of ')"
    until(browser, f"document.querySelector('dialog').open && {shown}" if "id=" in address else shown)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(found => found.textContent.trim())", selector
    )


def test_headings_and_leaderboard(opened):
    assert opened.title == "made \u00b7 debate-rl"
    assert texts(opened, "main > section > h2") == [
        "Leaderboard", "Judge accuracy by protocol", "Judge calibration", "Weak-to-strong",
        "Behaviour of the debaters", "Training", "Debates", "Failed legs", "All effects", "Costs", "Config",
    ]  # fmt: skip
    assert sorted(texts(opened, ".leaderboard tbody th")) == ["base", "dpo", "sft"]


def test_what_was_found_is_read_without_scrolling(opened):
    opened.execute_script("scrollTo(0, 0)")
    bottom = opened.execute_script("return document.querySelector('.findings li').getBoundingClientRect().bottom")
    assert bottom < 800 and 3 <= len(texts(opened, ".findings li")) <= 5


def test_tables_do_not_clip_at_1280_pixels(opened):
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        clipped = opened.execute_script("""
            return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)
                .map(box => box.textContent.trim().slice(0, 60));
        """)
        assert clipped == []
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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
    assert outside == [22, []]


@pytest.mark.parametrize("dark", [False, True])
def test_figures_take_the_colours_of_the_scheme(opened, dark):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    ink, page = opened.execute_script("""
        return [getComputedStyle(document.querySelector('svg.plot .role-title text')).fill,
                getComputedStyle(document.body).color];
    """)
    assert ink == page


def test_the_point_of_a_figure_leads_to_its_debates(opened):
    opened.execute_script("document.querySelector('dialog').close()")
    link = opened.execute_script("""
        const link = document.querySelector('#ratings svg a');
        link.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
        return [link.getAttribute('href'), link.querySelector('title').textContent];
    """)
    assert link[0].startswith("#debates?stage=tournament&player=") and "Elo" not in link[0] and "[" in link[1]
    until(opened, "document.querySelector('select[name=player]').value")
    assert opened.execute_script("return document.querySelector('select[name=stage]').value") == "tournament"


def test_a_debate_opens_beside_its_story_with_three_kinds_of_quotes(opened):
    go_to(opened, "#debates?stage=tournament&player=base&sort=surprise")
    rows = int(until(opened, "document.querySelector('.found').textContent.match(/^[0-9]+/)[0]"))
    assert rows == 60
    go_to(opened, "#debates?stage=oversight&protocol=debate")
    opened.execute_script("document.querySelector('.list a').click()")
    until(opened, "document.querySelector('dialog').open && document.querySelector('.reader .passage .whole')")
    left, right = opened.execute_script("""
        return ['.speeches', '.passage'].map(part =>
            document.querySelector('.reader ' + part).getBoundingClientRect().toJSON());
    """)
    assert left["right"] < right["left"] and abs(left["top"] - right["top"]) < 20
    jumps = opened.execute_script("return document.querySelectorAll('.reader .jump').length")
    assert jumps and texts(opened, ".reader .passage [data-quote]")
    assert "B read first" in texts(opened, ".reader .verdict table")[0]
    colours = opened.execute_script("""
        return ['exact', 'invalid'].map(look =>
            getComputedStyle(document.querySelector('.reader .speech mark.' + look)).backgroundColor)
    """)
    assert len(set(colours)) == 2 and "rgba(0, 0, 0, 0)" not in colours
    # Between the rounds stands what the judge asked, as words alone.
    (asked,) = texts(opened, ".reader .speeches .asked")
    assert asked.startswith("judge asks") and "Why?" in asked and "\u2039script\u203a" in asked and "[U+202E]" in asked


def test_the_address_of_a_debate_opens_it_again(opened):
    go_to(opened, "#debates?stage=oversight&protocol=single")
    opened.execute_script("document.querySelector('.list a').click()")
    until(opened, "document.querySelector('dialog').open && document.querySelector('.reader h3')")
    address, words = opened.current_url, texts(opened, ".reader .meta")
    opened.get("about:blank")
    opened.get(address)
    until(opened, "document.querySelector('dialog').open && document.querySelector('.reader h3')")
    assert "id=" in address and texts(opened, ".reader .meta") == words


def test_the_table_is_worked_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    go_to(opened, "#debates?stage=oversight")
    opened.execute_script("document.activeElement.blur()")
    press(opened, "/", *"q-3")
    until(opened, "document.querySelector('.found').textContent.startsWith('3 of 36')")
    opened.execute_script("document.activeElement.blur()")
    press(opened, "j", "j", Keys.ENTER)
    until(opened, "document.querySelector('dialog').open && document.querySelector('.reader h3')")
    assert "single" in texts(opened, ".reader .body > .meta")[0]
    press(opened, "j")
    until(opened, "document.querySelector('.reader .body > .meta').textContent.startsWith('blind')")
    press(opened, Keys.ESCAPE)
    until(opened, "!document.querySelector('dialog').open")
    assert opened.execute_script("return document.activeElement.closest('tbody') !== null")


@pytest.mark.parametrize("page", ["index.html", "share.html"])
def test_hostile_text_never_runs_and_nothing_was_refused(opened, page):
    opened.get(opened.page.replace("index.html", page))
    go_to(opened, "#debates?stage=oversight")
    opened.execute_script("document.querySelector('.list a').click()")
    until(opened, "document.querySelector('dialog').open && document.querySelector('.reader .speech')")
    assert any("window.owned = 1" in text for text in texts(opened, ".reader .speech .text"))
    assert any("[U+202E]" in text for text in texts(opened, ".reader .speech .text"))
    assert opened.execute_script("return window.owned === undefined && document.scripts.length === 1")
    assert opened.title == "made \u00b7 debate-rl"
    assert opened.execute_script("return document.querySelectorAll('img').length") == 0
    assert opened.get_log("browser") == []
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    beside = opened.page.replace("index.html", "debates/")
    assert all(name.startswith(beside) for name in loaded)
    assert page == "index.html" or not loaded


def test_the_policy_lets_no_other_script_run(opened):
    opened.execute_script("""
        document.body.insertAdjacentHTML('beforeend', '<img src="x:" onerror="window.owned = 3">');
        const box = document.createElement('div');
        box.setAttribute('onclick', 'window.owned = 4');
        document.body.append(box);
        box.click();
        document.body.insertAdjacentHTML('beforeend', '<iframe srcdoc="<script>parent.owned = 5</script>"></iframe>');
    """)
    until(opened, "document.readyState === 'complete'")
    assert opened.execute_script("return window.owned === undefined")
    opened.get_log("browser")
    opened.get(opened.page)
    opened.execute_script("document.querySelectorAll('details').forEach(found => found.open = true)")


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
        go_to(opened, "#debates?stage=oversight")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 375
        opened.execute_script("document.querySelector('.list a').click()")
        until(opened, "document.querySelector('dialog').open && document.querySelector('.reader .passage')")
        tops = opened.execute_script("""
            return ['.speeches', '.passage'].map(part =>
                document.querySelector('.reader ' + part).getBoundingClientRect().top);
        """)
        assert tops[0] < tops[1]
        opened.execute_script("document.querySelector('dialog').close()")
        smallest = opened.execute_script("""
            return Math.min(...[...document.querySelectorAll('svg.plot text')].map(text =>
                parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))
        """)
        assert smallest > 9
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
