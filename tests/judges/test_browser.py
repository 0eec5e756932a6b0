"""Judging in a browser, through real HTTP on loopback: what is asked, what is kept, and what hostile text can do."""

import json
import math
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.game.transcript import shown_text
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.judges.human import reward
from debate_rl.judges.human_records import table
from debate_rl.records import append, read, read_log
from tests import ROOT
from tests.command import mistake
from tests.judges.games import asked, game

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")

from debate_rl.judges.browser.app import pieces, visible
from debate_rl.judges.browser.sittings import Bench, Step, judge_tokens
from tests.chromium import open_chromium

HOSTILE = (
    "<script>window.owned = 1; document.title = 'owned'</script><img src=x onerror='window.owned = 2'>"
    "</p></article></main> {side}{turn} \u202eevil <quote>it moved</quote> <quote>a <b>lie</b></quote>"
)


def games(stories=3, said="said {side}{turn}", turns=2):
    """Two debates on each of some stories, and a consultancy on each."""
    made = []
    for story in range(stories):
        for one in range(2):
            number = 2 * story + one
            about = asked(number, correct=number % 2, story=f"s{story}", passage="it moved . secret words .")
            made.append(game(about, said=said, turns=turns))
        made.append(game(asked(100 + story, story=f"s{story}"), "double", said=said, turns=turns))
    return made


def put_run(folder, played):
    """A folder of a run with finished games."""
    legs = [JudgedDebate(transcript=one, verdict=Verdict(judge="lab-base", p=(0.73, 0.27))) for one in played]
    append(folder / "tournament" / "debates.jsonl", legs)
    return folder


class Server:
    """`debate-rl judge serve` as a process of its own."""

    def __init__(self, run, log, *words, judges=("ann",)):
        named = [word for name in judges for word in ("--judge", name)]
        command = [sys.executable, "-m", "debate_rl", "judge", "serve", str(run), "--log", str(log), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *named, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.addresses = {}
        for line in self.process.stdout:
            if line.startswith("verdicts:"):
                break
            name, _, address = line.strip().partition(": ")
            self.addresses[name] = address

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        assert self.addresses, self.process.communicate()
        return self

    def __exit__(self, *error):
        self.kill()


def fetch(address, **form):
    """A page as (status, text, final address, headers), reached like a browser does, redirects followed."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=data), timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.url, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), address, error.headers


def press(address):
    """Press a button of a form without fields."""
    return fetch(address, press="1")


def hidden(page):
    """The hidden fields of a round's form."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with two judges; each test that changes things has a server or a judge of its own."""
    folder = tmp_path_factory.mktemp("served")
    run = put_run(folder / "run", games())
    names = ("ann", "bob", "cem", "dot", "eve")
    with Server(run, folder / "judgements.jsonl", "--count", "2", judges=names) as server:
        yield server, folder / "judgements.jsonl"


def test_a_person_judges_round_by_round_and_is_told_at_the_end(served):
    server, log = served
    home = server.addresses["ann"]
    assert "0 of 2 judged" in fetch(home)[1]
    page = press(home + "/start")[1]
    assert "Debate 1 of 2" in page and "round 1 of 2" in page
    assert "0</p>" in page and "A1" not in page and "secret words" not in page and "correct answer" not in page
    page = fetch(home + "/answer", **hidden(page), percent="60", then="read")[1]
    assert "round 2 of 2" in page and "you gave A 60 %" in page and "secret words" not in page
    _, page, url, _ = fetch(home + "/answer", **hidden(page), percent="80", then="decide")
    (leg,) = [leg for leg in read(log, JudgedDebate) if leg.verdict.judge == "human/ann"]
    assert "/feedback/" in url and leg.verdict.p == pytest.approx((0.8, 0.2))
    assert [ask.after_turn is None for ask in leg.verdict.asks] == [False, True]
    right = leg.p_correct > 0.5
    assert ("You were right" if right else "You were wrong") in page
    assert f"{reward(leg):+.3f}" in page and reward(leg) == pytest.approx(math.log2(leg.p_correct) - 0.1)
    assert "1 of 2 judged" in page and fetch(url)[1] == page
    model = 73 if leg.transcript.question.correct == 0 else 27
    assert f"lab-base read the whole debate and gave it {model} %" in page


def test_no_story_comes_twice_and_the_log_is_scored_like_any(served, call):
    server, log = served
    home = server.addresses["bob"]
    for _ in range(2):
        page = press(home + "/start")[1]
        fetch(home + "/answer", **hidden(page), percent="70", then="decide")
    legs = [leg for leg in read(log, JudgedDebate) if leg.verdict.judge == "human/bob"]
    assert len({leg.transcript.question.group for leg in legs}) == len(legs) == 2
    assert "Thank you" in fetch(home)[1] and "Thank you" in press(home + "/start")[1]
    assert {leg.transcript.protocol.turns for leg in legs} <= {1}
    code, out, _ = call("judge", "evaluate", "--recorded", log)
    assert code == 0 and "human/bob" in out
    assert sum(row.n for row in table(log) if row.condition.startswith("human/bob")) == 2


def test_a_round_answered_twice_keeps_the_first_answer_and_says_so(served):
    server, log = served
    home = server.addresses["cem"]
    first = press(home + "/start")[1]
    assert press(home + "/start")[1].count(hidden(first)["game"]) == 1
    fetch(home + "/answer", **hidden(first), percent="60", then="read")
    # The other tab, and the page that the back button leads to, still hold the form of round 1.
    status, page, _, _ = fetch(home + "/answer", **hidden(first), percent="10", then="decide")
    assert status == 200 and "Round 1 was answered before, with 60 %; the first answer stays." in page
    assert "round 2 of 2" in page
    second = hidden(page)
    fetch(home + "/answer", **second, percent="55", then="decide")
    _, page, url, _ = fetch(home + "/answer", **second, percent="99", then="decide")
    assert "/feedback/" in url and "Round 2 was answered before, with 55 %" in page
    assert "can not be answered now" in fetch(home + "/answer", **{**second, "round": "7"}, percent="9", then="read")[1]
    (leg,) = [leg for leg in read(log, JudgedDebate) if leg.verdict.judge == "human/cem"]
    assert leg.verdict.p[0] == pytest.approx(0.55) and leg.verdict.after_turn[0][0] == pytest.approx(0.6)


@pytest.mark.parametrize("percent", ["", "what", "0", "100", "nan", "inf", "-3", "<script>"])
def test_what_is_no_probability_is_asked_again(served, percent):
    server, _ = served
    home = server.addresses["dot"]
    page = press(home + "/start")[1]
    status, page, _, _ = fetch(home + "/answer", **hidden(page), percent=percent, then="read")
    assert status == 400 and "write a number from 1 to 99" in page and "round 1 of 2" in page and "<script>" not in page


def test_the_clock_stops_in_a_pause(served):
    server, log = served
    home = server.addresses["eve"]
    press(home + "/start")
    assert (
        "Paused" in press(home + "/pause")[1] and "Paused" in fetch(home)[1] and "Paused" in press(home + "/start")[1]
    )
    assert "round 1 of 2" in press(home + "/resume")[1]
    steps = [step for step in read_log(log.with_name("judgements.rounds.jsonl"), Step) if step.judge == "human/eve"]
    assert [step.kind for step in steps] == ["opened", "paused", "resumed"]


def test_only_judges_come_in_and_nothing_runs_or_is_cached(served):
    server, _ = served
    home = server.addresses["ann"]
    status, _, _, headers = fetch(home)
    assert status == 200 and headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    root = home.rpartition("/j/")[0]
    for address in (root, root + "/j/x", root + "/j/x/start", home + "x", root + "/j/%00", home + "/feedback/../../x"):
        assert fetch(address)[0] in (404, 405)
    assert fetch(home + "/answer", game="x" * 9000, round="1")[0] == 413
    assert fetch(home + "/answer", game="none", round="1", percent="50")[0] == 200
    assert fetch(home + "/feedback/none")[0] == 200
    request = urllib.request.Request(home, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=60)


def test_a_killed_server_loses_nothing(tmp_path):
    run, log = put_run(tmp_path / "run", games()), tmp_path / "judgements.jsonl"
    with Server(run, log) as server:
        home = server.addresses["ann"]
        page = press(home + "/start")[1]
        fetch(home + "/answer", **hidden(page), percent="60", then="read")
        port = urllib.parse.urlsplit(home).port
    assert server.process.returncode == -signal.SIGKILL
    # Torn as by a crash while a line was written, and the address stays the same.
    with log.with_name("judgements.rounds.jsonl").open("ab") as file:
        file.write(b'{"judge":"human/an')
    with Server(run, log, "--port", str(port)) as again:
        assert again.addresses["ann"] == home
        assert "Round 2 is waiting" in fetch(home)[1]
        waiting = {"game": hidden(page)["game"], "round": "2"}
        # The tab that was open all the time can still send its answer.
        assert "/feedback/" in fetch(home + "/answer", **waiting, percent="90", then="decide")[2]
    (leg,) = read(log, JudgedDebate)
    assert [leg.verdict.after_turn[0][0], leg.verdict.p[0]] == pytest.approx([0.6, 0.9])


def test_a_server_that_died_before_the_verdict_was_written_writes_it_once(tmp_path):
    log = tmp_path / "judgements.jsonl"
    bench = Bench(games(), ["human/ann"], log, 3)
    bench.start("human/ann")
    sitting = bench.sitting("human/ann")
    assert bench.answer("human/ann", sitting.game.id, 1, 30.0, True)
    whole = log.read_bytes()
    log.unlink()
    for _ in range(2):
        Bench(games(), ["human/ann"], log, 3)
        assert log.read_bytes() == whole


def test_a_game_that_was_played_anew_is_not_gone_on_with(tmp_path):
    log = tmp_path / "judgements.jsonl"
    bench = Bench(games(), ["human/ann"], log, 3)
    bench.start("human/ann")
    opened = bench.sitting("human/ann").game
    again = Bench(games(said="other words {side}{turn}"), ["human/ann"], log, 3)
    assert again.sitting("human/ann") is None
    assert again.next_game("human/ann").question.group != opened.question.group
    assert Bench(games(), ["human/ann"], log, 3).sitting("human/ann").game == opened


def test_an_answer_that_can_not_be_written_is_not_lost_without_a_word(tmp_path):
    run, log = put_run(tmp_path / "run", games()), tmp_path / "judgements.jsonl"
    with Server(run, log) as server:
        home = server.addresses["ann"]
        form = hidden(press(home + "/start")[1])
        log.mkdir()  # as bad as a full disk
        status, page, _, _ = fetch(home + "/answer", **form, percent="60", then="decide")
        assert status == 500 and "Not saved" in page and "Traceback" not in page
        log.rmdir()
        _, page, url, _ = fetch(home + "/answer", **form, percent="60", then="decide")
        assert "/feedback/" in url and "You were" in page
    (leg,) = read(log, JudgedDebate)
    assert leg.verdict.p[0] == pytest.approx(0.6)


@pytest.mark.slow
def test_debates_of_a_config_are_played_once(tmp_path):
    log = tmp_path / "judgements.jsonl"
    words = ("protocol.prompts=lab", "protocol.max_new_tokens=8", "--count", "1")
    config = ROOT / "configs" / "quickstart.yaml"
    with Server(config, log, *words) as server:
        page = press(server.addresses["ann"] + "/start")[1]
    (kept,) = tmp_path.glob("judgements.games-*.jsonl")
    played = kept.read_bytes()
    with Server(config, log, *words) as server:
        again = press(server.addresses["ann"] + "/resume")[1]
    speech = re.compile('<p class="text">.*?</p>', re.DOTALL)
    assert kept.read_bytes() == played and speech.findall(again) == speech.findall(page) != []


def test_time_without_a_server_and_in_pauses_is_not_counted(tmp_path):
    now = [1000.0]
    log = tmp_path / "judgements.jsonl"
    bench = Bench(games(), ["human/ann"], log, 3, lambda: now[0])
    bench.start("human/ann")
    now[0] = 1010
    bench.pause("human/ann")
    now[0] = 1500
    bench.resume("human/ann")
    now[0] = 1505
    sitting = bench.sitting("human/ann")
    assert sitting.seconds(now[0]) == 15
    bench.answer("human/ann", sitting.game.id, 1, 30.0, False)
    now[0] = 9000
    again = Bench(games(), ["human/ann"], log, 3, lambda: now[0]).sitting("human/ann")
    assert again.seconds(now[0]) == 15 and again.running_since is None and again.given == [0.3]


@given(st.lists(st.sampled_from(["start", "pause", "resume", "read", "decide", "twice", "restart"]), max_size=30))
def test_whatever_judges_do_every_answer_is_kept_once_and_no_story_comes_twice(tmp_path_factory, moves):
    log = tmp_path_factory.mktemp("moves") / "judgements.jsonl"
    played = games(stories=2)
    bench = Bench(played, ["human/ann"], log, 5)
    answers = 0
    for move in moves:
        sitting = bench.sitting("human/ann")
        if move == "restart":
            bench = Bench(played, ["human/ann"], log, 5)
        elif move in ("start", "pause", "resume"):
            getattr(bench, move)("human/ann")
        elif sitting is not None and move == "twice":
            assert not bench.answer("human/ann", sitting.game.id, sitting.round - 1, 50.0, True)
        elif sitting is not None:
            answers += bench.answer("human/ann", sitting.game.id, sitting.round, 40.0, move == "decide")
    legs = read(log, JudgedDebate) if log.exists() else []
    stories = [leg.transcript.question.group for leg in legs]
    assert len(stories) == len(set(stories)) <= 2
    is_open = bench.sitting("human/ann")
    assert answers == sum(len(leg.verdict.asks) for leg in legs) + (len(is_open.answers) if is_open else 0)
    assert bench.progress("human/ann") == (len(legs), 2)


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_pieces_hold_the_whole_speech_and_only_true_quotes_are_marked(text):
    played = game(
        asked(1), said=text.replace("{", "(").replace("}", ")") + "<v_quote>no</v_quote> <quote>it moved</quote>"
    )
    shown = shown_text(played.speeches[0], played.protocol)
    cut = pieces(shown)
    marks = re.compile("</?[vnu]_quote>")
    assert "".join(piece.text for piece in cut) == visible(marks.sub("", shown))
    assert all(piece.text != "no" for piece in cut if piece.verdict)


def test_mistakes_are_one_line(tmp_path, call, served):
    server, log = served
    run = put_run(tmp_path / "run", games(1))
    mine = tmp_path / "mine.jsonl"
    port = urllib.parse.urlsplit(server.addresses["ann"]).port
    said = mistake(call("judge", "serve", run, "--log", mine, "--port", port))
    assert f"--port {port}: Address already in use; name another port" in said
    assert "another server writes to" in mistake(call("judge", "serve", run, "--log", log, "--port", "0"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no finished debate" in mistake(call("judge", "serve", empty, "--log", mine, "--port", "0"))
    assert "run not found" in mistake(call("judge", "serve", tmp_path / "none", "--log", mine, "--port", "0"))
    assert "letters, digits" in mistake(call("judge", "serve", run, "--log", mine, "--judge", "a/b"))
    assert "twice" in mistake(call("judge", "serve", run, "--log", mine, "--judge", "a", "--judge", "a"))
    assert "is no config" in mistake(call("judge", "serve", run, "seed=1", "--log", mine, "--port", "0"))
    (tmp_path / "bad.jsonl").write_text("{}\n")
    assert "not a leg" in mistake(call("judge", "serve", run, "--log", tmp_path / "bad.jsonl"))


def test_tokens_are_private_and_stay(tmp_path):
    log = tmp_path / "log.jsonl"
    first = judge_tokens(log, ["ann"])
    both = judge_tokens(log, ["bob", "ann"])
    assert both["ann"] == first["ann"] != both["bob"] and len(first["ann"]) >= 20
    path = tmp_path / "log.tokens.json"
    assert path.stat().st_mode & 0o77 == 0 and json.loads(path.read_text()) == {"ann": both["ann"], "bob": both["bob"]}
    path.write_text("[1]")
    with pytest.raises(UserError, match="not the tokens"):
        judge_tokens(log, ["ann"])


@pytest.mark.browser
def test_in_chromium_a_person_judges_a_hostile_debate(tmp_path):
    pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    run, log = put_run(tmp_path / "run", games(2, said=HOSTILE)), tmp_path / "judgements.jsonl"
    browser = open_chromium(tmp_path / "profile", "1280,800")

    def text():
        return browser.execute_script("return document.body === null ? '' : document.body.innerText")

    def wait(*words):
        """Wait for the page that holds these words: a click does not wait for the answer."""
        WebDriverWait(browser, 60).until(lambda _: any(one in text() for one in words))

    def click(label, *words):
        browser.find_element(By.XPATH, f"//button[contains(., '{label}')]").click()
        wait(*words)

    def say(percent):
        browser.find_element(By.ID, "percent").send_keys(percent)

    try:
        with Server(run, log) as server:
            browser.get(server.addresses["ann"])
            click("Start debate 1 of 2", "round 1 of 2")
            assert "<script>" not in text() and "\u2039script\u203a" in text()
            assert "[U+202E]" in text() and "\u202e" not in browser.page_source
            colours = browser.execute_script("""
                return ['exact', 'invalid'].map(look =>
                    getComputedStyle(document.querySelector('.text mark.' + look)).backgroundColor)
            """)
            assert len(set(colours)) == 2
            assert browser.execute_script("return !document.querySelector('form.answer').checkValidity()")
            say("60")
            click("Read round 2", "round 2 of 2")
            assert "you gave A 60 %" in text()
            browser.back()
            wait("round 2 of 2")
            browser.refresh()
            click("Pause", "Paused")
            click("Continue", "round 2 of 2")
            assert browser.execute_script("return window.owned === undefined && document.images.length === 0")
            browser.set_window_size(400, 800)
            assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
            say("80")
            click("Decide", "You were")
            assert "1 of 2 judged" in text()
            browser.back()
            # Whichever page that is, it is no form of the debate that was decided.
            wait("You were", "Next debate")
            assert "owned" not in browser.title
            assert browser.get_log("browser") == []
        (leg,) = read(log, JudgedDebate)
        assert leg.verdict.p[0] == pytest.approx(0.8)
    finally:
        browser.quit()
