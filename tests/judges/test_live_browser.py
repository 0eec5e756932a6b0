"""People ask the debaters between rounds, in a browser; scripted models answer, through real HTTP on loopback."""

import re
import threading
import time

import pytest

from debate_rl.game.transcript import JudgeQuestion, Origin
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.records import append, read, read_log
from tests import ROOT
from tests.judges.games import asked, game
from tests.judges.test_live_games import answer_question, opened, player

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")

import uvicorn

from debate_rl.judges.browser.app import Pages, listen
from debate_rl.judges.browser.sittings import Bench, Step
from tests.chromium import open_chromium
from tests.judges.test_browser import Server, fetch, hidden, press, put_run


class Live:
    """A server of live games in a thread of this process."""

    def __init__(self, log, play, games=None, count=3):
        self.bench = Bench(games or opened(), ["human/ann", "human/bob"], log, count, live=True)
        pages = Pages(self.bench, {"human/ann": "tokenann", "human/bob": "tokenbob"}, None, play)
        self.socket = listen(0)
        config = uvicorn.Config(pages.app(), log_level="error", access_log=False, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def home(self, name="ann"):
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/j/token{name}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(60)
        self.socket.close()


def until(home, words):
    """Ask for a judge's page, as its browser does, until it holds some words."""
    for _ in range(600):
        page = fetch(home)[1]
        if words in page:
            return page
        time.sleep(0.05)
    raise AssertionError(page)


def steps(log):
    return read_log(log.with_name(f"{log.stem}.rounds.jsonl"), Step)


def test_a_question_in_the_browser_is_answered_in_the_next_round(tmp_path):
    log = tmp_path / "log.jsonl"
    with Live(log, player()) as live:
        home = live.home()
        press(home + "/start")
        page = until(home, 'round 1 of 3</p>\n<p class="clock"')
        assert "nobody asked" in page and 'name="question"' in page and "two" not in hidden(page)
        fetch(home + "/answer", **hidden(page), percent="60", then="read", question="who <script> moved it ?")
        page = until(home, "I was asked")
        assert "You asked" in page and "<script> moved" not in page and "I was asked: who \u2039script\u203a" in page
        # The form of round 1, sent again from another tab, asks nothing.
        again = {**hidden(page), "round": "1"}
        page = fetch(home + "/answer", **again, percent="10", then="read", question="what else ?")[1]
        assert "the first answer stays" in page
        fetch(home + "/answer", **hidden(page), percent="65", then="read")
        page = until(home, 'round 3 of 3</p>\n<p class="clock"')
        assert 'name="question"' not in page and page.count("You asked") == 1
        _, page, url, _ = fetch(home + "/answer", **hidden(page), percent="80", then="decide", question="late ?")
        assert "/feedback/" in url and "You were right" in page
        # Another judge has other words on the same questions.
        other = live.home("bob")
        press(other + "/start")
        until(other, 'round 1 of 3</p>\n<p class="clock"')
    (leg,) = read(log, JudgedDebate)
    assert [(one.turn, one.text) for one in leg.transcript.asked] == [(0, "who <script> moved it ?")]
    assert leg.transcript.complete and leg.verdict.p[0] == pytest.approx(0.8)
    kinds = [step.kind for step in steps(log) if step.judge == "human/ann"]
    assert kinds == ["opened", "spoke", "answered", "spoke", "answered", "spoke", "answered"]


def test_finished_games_have_no_field_for_questions(tmp_path):
    played = game(asked(1), "debate_questions").ask(JudgeQuestion(turn=0, text="why ?", origin=Origin(player="j")))
    run = put_run(tmp_path / "run", [played])
    with Server(run, tmp_path / "log.jsonl") as server:
        page = press(server.addresses["ann"] + "/start")[1]
        assert "The judge asked" in page and "why ?" in page and 'name="question"' not in page
        page = fetch(server.addresses["ann"] + "/answer", **hidden(page), percent="9", then="read", question="x ?")[1]
        assert "round 2 of 2" in page
    assert all("question" not in step.model_fields_set for step in steps(tmp_path / "log.jsonl"))


def test_a_server_that_dies_between_question_and_answer_goes_on_there(tmp_path):
    log = tmp_path / "log.jsonl"
    bench = Bench(opened(), ["human/ann"], log, 3, live=True)
    bench.start("human/ann")
    sitting = bench.sitting("human/ann")
    assert sitting.waiting and not bench.answer("human/ann", sitting.id, 1, 50.0, False)
    bench.spoke("human/ann", sitting.id, player()(sitting.game))
    assert bench.answer("human/ann", sitting.id, 1, 60.0, False, "why ?")
    whole = sitting.game
    for _ in range(2):  # killed and started again, twice
        bench = Bench(opened(), ["human/ann"], log, 3, live=True)
        sitting = bench.sitting("human/ann")
        assert sitting.game == whole and sitting.waiting and sitting.running_since is None
    with Live(log, player()) as live:
        page = until(live.home(), "I was asked: why ?")
        assert "you gave A 60 %" in page
        fetch(live.home() + "/answer", **hidden(page), percent="70", then="decide")
    (leg,) = read(log, JudgedDebate)
    assert leg.transcript.protocol.turns == 2 and leg.transcript.asked == whole.asked


def test_the_clock_stands_still_while_the_debaters_write(tmp_path):
    now = [0.0]
    bench = Bench(opened(), ["human/ann"], tmp_path / "log.jsonl", 3, lambda: now[0], live=True)
    bench.start("human/ann")
    sitting = bench.sitting("human/ann")
    for moment in (100, 200):
        now[0] = moment
        bench.spoke("human/ann", sitting.id, player()(sitting.game))
        now[0] = moment + 7
        bench.answer("human/ann", sitting.id, sitting.round, 50.0, False)
        bench.pause("human/ann")
        bench.resume("human/ann")
    now[0] = 900
    assert sitting.seconds(now[0]) == 14
    again = Bench(opened(), ["human/ann"], tmp_path / "log.jsonl", 3, lambda: now[0], live=True)
    assert again.sitting("human/ann").seconds(now[0]) == 14


def test_debaters_who_fail_are_asked_again_or_left_out(tmp_path):
    faults = ["lost <b>"]

    def play(live):
        if faults:
            return Failure(seat="A", turn=0, kind="server", message=faults[0])
        return player()(live)

    with Live(tmp_path / "log.jsonl", play) as live:
        home = live.home()
        press(home + "/start")
        page = until(home, "could not go on")
        assert "lost &lt;b&gt;" in page and "refresh" not in page
        faults.clear()
        press(home + "/again")
        until(home, "nobody asked")
        assert fetch(home + "/drop", press="1")[0] == 200 and live.bench.sitting("human/ann") is not None
        faults.append("gone")
        other = live.home("bob")
        press(other + "/start")
        until(other, "gone")
        assert "Next debate" in press(other + "/drop")[1] or "Judge debates" in fetch(other)[1]
    assert [step.kind for step in steps(tmp_path / "log.jsonl") if step.judge == "human/bob"] == ["opened", "dropped"]


@pytest.mark.slow
def test_models_of_the_lab_answer_in_the_browser_and_a_killed_server_loses_nothing(tmp_path):
    log, config = tmp_path / "log.jsonl", ROOT / "configs" / "quickstart.yaml"
    words = ("protocol.name=debate_questions", "protocol.prompts=lab", "protocol.max_new_tokens=12", "--count", "1")
    with Server(config, log, *words) as server:
        home = server.addresses["ann"]
        press(home + "/start")
        page = until(home, "Ask the debaters")
        fetch(home + "/answer", **hidden(page), percent="60", then="read", question="where")
    with Server(config, log, *words) as server:
        home = server.addresses["ann"]
        page = until(home, 'name="percent"')
        assert "You asked" in page
        fetch(home + "/answer", **hidden(page), percent="70", then="decide")
    (leg,) = read(log, JudgedDebate)
    assert leg.transcript.asked[0].text == "where" and leg.transcript.complete


@pytest.mark.browser
def test_in_chromium_a_person_asks_hostile_debaters(tmp_path):
    pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    browser = open_chromium(tmp_path / "profile", "400,800")

    def text():
        return browser.execute_script("return document.body === null ? '' : document.body.innerText")

    def click(label, words):
        browser.find_element(By.XPATH, f"//button[contains(., '{label}')]").click()
        WebDriverWait(browser, 60).until(lambda _: words in text() and "are writing" not in text())

    def attack(request):
        return answer_question(request) + "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>"

    try:
        with Live(tmp_path / "log.jsonl", player(attack)) as live:
            browser.get(live.home())
            assert "put a question to the debaters" in text()
            click("Start debate 1 of 3", "round 1 of 3")
            browser.find_element(By.ID, "percent").send_keys("60")
            field = browser.find_element(By.ID, "question")
            assert field.get_attribute("maxlength") == "300"
            field.send_keys("<script>window.owned = 3</script> why ?")
            click("Read round 2", "round 2 of 3")
            assert "You asked: \u2039script\u203a" in text() and "I was asked: \u2039script\u203a" in text()
            assert browser.execute_script("return window.owned === undefined && document.images.length === 0")
            assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
            browser.refresh()
            assert "round 2 of 3" in text()
            browser.find_element(By.ID, "percent").send_keys("70")
            click("Read round 3", "round 3 of 3")
            assert not browser.find_elements(By.ID, "question")
            browser.find_element(By.ID, "percent").send_keys("80")
            click("Decide", "You were")
            assert browser.get_log("browser") == []
    finally:
        browser.quit()
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert len(leg.transcript.asked) == 1 and leg.transcript.complete


def test_a_log_of_another_version_without_live_games_is_read(tmp_path):
    log = tmp_path / "log.jsonl"
    bench = Bench([game(asked(1), turns=2)], ["human/ann"], log, 1)
    bench.start("human/ann")
    bench.answer("human/ann", bench.sitting("human/ann").id, 1, 60.0, False, "not asked")
    text = log.with_name("log.rounds.jsonl").read_text()
    assert not {"question", "speeches", "picked"} & set(re.findall(r'"(\w+)":', text))
    append(tmp_path / "copy.rounds.jsonl", steps(log))
    assert (tmp_path / "copy.rounds.jsonl").read_text() == text
