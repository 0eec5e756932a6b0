"""The page of 10,000 debates on 100 real stories: its size, and how long it takes in a headless Chromium. One table.

Speeches are as long as the paper's (three turns of about 130 words a side) and quote their stories; half of the quotes
are changed. Stories are those of the shared human debates, cut to 27,000 characters; without them, drawn words.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_page [FOLDER]
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.quotes import Quote
from debate_rl.game.transcript import Origin, Speech, open_transcript
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
from debate_rl.records import write, write_json, write_text
from debate_rl.report import write_report
from tests import SHARED

DEBATES, STORIES, LETTERS, TURNS, WORDS = 10_000, 100, 27_000, 3, 110
PLAYERS = ("base", "sft", "dpo", "dpo@4")


def stories() -> list[str]:
    """Real stories, turned round at different places where there are too few of them."""
    path = SHARED / "data/nyu_2023/stories.jsonl"
    texts = [
        " ".join(random.Random(0).choices(["pipe", "shed", "barn", "noon", "omar", "ines", "took", "saw"], k=6000))
    ]
    if path.exists():
        texts = [json.loads(line)["story"] for line in path.read_text(encoding="utf-8").splitlines()]
    found = []
    for number in range(STORIES):
        text = texts[number % len(texts)]
        start = 211 * (number // len(texts))
        found.append((text[start:] + text[:start] + text)[:LETTERS])
    return found


def speech(side: str, turn: int, story: str, player: str, draw: random.Random) -> Speech:
    """Words of the story with two quotes from it, of which one may be made up."""
    words = story.split()
    said = draw.choices(words, k=WORDS)
    text, quotes = " ".join(said[: WORDS // 2]) + " ", []
    for verdict in ("exact", draw.choice(("exact", "invalid"))):
        start = draw.randrange(len(story) - 90)
        quoted = story[start : start + 80]
        begin = len(text)
        text += f"<quote>{quoted}</quote> "
        place = {"passage_start": start, "passage_end": start + 80, "score": 100.0} if verdict == "exact" else {}
        quotes.append(Quote(text=quoted, verdict=verdict, start=begin, end=len(text) - 1, **place))
    text += " ".join(said[WORDS // 2 :])
    origin = Origin(player=player, model="lab-base", seed=3, temperature=0.8, new_tokens=180)
    return Speech(side=side, turn=turn, text=text, quotes=tuple(quotes), origin=origin)


def debates():
    """One debate at a time."""
    draw, texts = random.Random(1), stories()
    rules = load_protocol("debate").model_copy(update={"turns": TURNS})
    for number in range(DEBATES):
        story = texts[number % STORIES]
        question = Question(
            id=f"q-{number // 20}", text=f"Why does the narrator leave, told in part {number // 20}?",
            answers=("He fears the captain.", "He has been paid to."), correct=number % 2, passage=story,
            group=f"story-{number % STORIES}", source="bench", split="test",
        )  # fmt: skip
        players = dict(zip("AB", draw.sample(PLAYERS, 2), strict=True))
        game = open_transcript(question, rules, players, seed=number)
        speeches = [speech(side, turn, story, players[side], draw) for turn in range(TURNS) for side in "AB"]
        p = draw.random()
        ask = Ask(sides=("A", "B"), logprobs=(-0.7, -0.8))
        verdict = Verdict(judge="judge", p=(p, 1 - p), asks=(ask, ask), after_turn=((p, 1 - p),) * TURNS)
        yield JudgedDebate(transcript=game.model_copy(update={"speeches": tuple(speeches)}), verdict=verdict)


def run_folder(folder: Path) -> Path:
    """A run with one stage of these debates."""
    write_text(folder / "config.yaml", "name: bench\nseed: 0\nstages:\n  arena: {}\n")
    write_json(folder / "arena" / "stage.json", {"name": "arena", "kind": "arena", "fingerprint": "0" * 16})
    write_json(folder / "arena" / "metrics.json", {})
    write(folder / "arena" / "debates.jsonl", debates())
    return folder


def in_browser(page: Path) -> dict[str, float]:
    """Seconds until the table and then a debate is there, and milliseconds of filters, searches and sorting."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tempfile.mkdtemp()}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or ""))
    wait = WebDriverWait(driver, 120, poll_frequency=0.01)
    measured = {}
    try:
        driver.get("about:blank")
        begun = time.perf_counter()
        driver.get(f"{page.as_uri()}#debates?stage=arena")
        wait.until(lambda one: one.execute_script("return document.querySelectorAll('.list tbody tr').length"))
        measured["opens until the table is there, s"] = time.perf_counter() - begun
        begun = time.perf_counter()
        driver.execute_script("document.querySelector('.list a').click()")
        wait.until(lambda one: one.execute_script("return !!document.querySelector('.reader .whole')"))
        measured["a debate beside its story, s"] = time.perf_counter() - begun
        driver.execute_script("document.querySelector('dialog').close()")
        for name, field, value in (
            ("filter by player, ms", "player", "dpo"), ("filter by verdict, ms", "verdict", "wrong"),
            ("filter by quotes, ms", "quotes", "invalid"), ("search, ms", "q", "part 17"),
            ("sort by surprise, ms", "sort", "surprise"),
        ):  # fmt: skip
            measured[name] = driver.execute_script(
                """const begun = performance.now(), field = document.querySelector(`.filters [name=${arguments[0]}]`);
                field.value = arguments[1];
                field.dispatchEvent(new Event("input", {bubbles: true}));
                document.body.getBoundingClientRect();
                const took = performance.now() - begun;
                field.value = "";
                field.dispatchEvent(new Event("input", {bubbles: true}));
                return took;""", field, value,
            )  # fmt: skip
    finally:
        driver.quit()
    return measured


def main() -> None:
    """Make the run, write its page, and print the table."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    run_folder(folder)
    begun = time.perf_counter()
    page = write_report(folder, folder / "report", table=[])
    rows = {"debates": float(DEBATES), "written, s": time.perf_counter() - begun}
    for name, files in (("in all, MB", page.parent.rglob("*")), ("share.html, MB", [page.with_name("share.html")])):
        rows[name] = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    rows |= in_browser(page)
    for name, value in rows.items():
        print(f"{name:34} {value:10.2f}")


if __name__ == "__main__":
    main()
