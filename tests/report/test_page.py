import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser

import pytest

from debate_rl.analysis.judging.judge_errors import JudgeErrors
from debate_rl.arena.tournament import scores
from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure
from debate_rl.records import read_json, write, write_json
from debate_rl.report import load_run, write_report
from debate_rl.report.page import ERRORS, render, render_pages
from debate_rl.report.wording import number
from tests import SHARED
from tests.report.figure_data import unpacked

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = (
    "<script>document.title = 'owned'</script></div></details></section><img src=x onerror=\"document.title='owned'\"> "
    "{{ 7 * 7 }} </style> \u202e\x1b[31m &lt;b&gt; <quote></mark><b>the pipe was moved</b></quote>"
)
NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "' onmouseover='alert(3)")


class Page(HTMLParser):
    """Elements, attributes and text of a page; refuses tags that do not match."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, **wanted):
        same = [found for name, found in self.elements if name == tag]
        return [found for found in same if all(found.get(key.rstrip("_")) == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def html(run_folder):
    return render(load_run(run_folder))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def hostile_run(made, folder):
    """A run whose players, speeches, passages, failures, stages and config all try to be markup."""
    run = made.open_run(folder, name="</title><script>alert(4)</script>", stages=("tournament",))
    questions = [
        made.question(n).model_copy(update={"text": HOSTILE, "passage": made.question(n).passage + HOSTILE})
        for n in range(4)
    ]
    made.tournament_stage(run, questions, skills=dict.fromkeys(NAMES, 0.5))
    legs = [made.leg(q, NAMES[:2], skills=dict.fromkeys(NAMES, 0.5), text=HOSTILE) for q in questions]
    failure = Failure(seat="<i>B</i>", turn=0, kind="<b>kind</b>", message="</table><script>alert(5)</script>")
    legs.append(legs[0].model_copy(update={"verdict": None, "failure": failure}))
    write(run / "tournament" / "debates.jsonl", legs)
    made.put(
        run, "a<b>&'\"", {"rows": 2, "<script>": 3}, kind="sft", history=[{"step": s, "</svg><b>": s} for s in (1, 2)]
    )
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "# </pre><script>alert(6)</script>\n")
    return run


@pytest.mark.parametrize("name", ["index.html", "share.html"])
def test_page_fetches_nothing_and_runs_one_script_that_its_policy_names(run_folder, tmp_path, name):
    path = write_report(run_folder, tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    assert {file.name for file in path.parent.iterdir()} == {"index.html", "share.html", "debates", "tables"}
    path = path.with_name(name)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert page.all("script") == [{}]
    script = html.split("<script>")[1].split("</script>")[0]
    named = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    dynamic = " 'strict-dynamic'" if name == "index.html" else ""
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{named}'{dynamic}; style-src 'unsafe-inline';")
    assert "unsafe-eval" not in policy and "connect-src" not in policy
    addresses = [v for _, found in page.elements for k, v in found.items() if k in ("src", "href", "action", "data")]
    assert all(value == "data:," or value.startswith("#") for value in addresses)
    assert "url(" not in path.read_text(encoding="utf-8")


def test_every_section_is_there(page):
    anchors = {found["id"] for found in page.all("section") if "id" in found}
    assert anchors == {"summary", "ratings", "oversight", "judge", "transfer", "behaviour", "training", "debates",
                       "failures", "costs", "config"}  # fmt: skip
    links = {found["href"].removeprefix("#") for found in page.all("a")}
    links = {link for link in links if not link.startswith("debates?")}
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert links <= set(ids)
    assert "No section for want" not in page.text


def test_every_figure_has_a_title_and_an_alternative_text(page, html):
    shown = page.all("svg")
    # the first screen's; elo, wins, accuracy over rating, protocols, their calibration, judge, before and after, its
    # coverage, transfer, quotes, curves
    assert len(shown) == 1 + 1 + 1 + 1 + 1 + 3 + 1 + 2 + 2 + 2 + 1 + 3 * 2
    assert all(figure["role"] == "img" and len(figure["aria-label"]) > 20 for figure in shown)
    assert len([found for name, found in page.elements if name == "title"]) > 1 + len(shown)  # those of points as well
    assert not re.search(r'"[^"<>]*\b(nan|inf)\b[^"<>]*"', html)


def test_leaderboard_gives_the_ratings_of_the_file(run_folder, page):
    found = read_json(run_folder / "tournament" / "metrics.json")["ratings"]
    for row in found["standings"]:
        rating, rate = row["rating"], row["win_rate"]
        elo = f"{row['player']} {rating['value']:.0f} [{rating['low']:.0f}, {rating['high']:.0f}]"
        assert f"{elo} {100 * rate['value']:.1f} [" in page.text
        assert f"{rating['n']} {rating['clusters']}" in page.text
    assert "with intervals over 6 stories; 71 matches" in page.text
    for pair in found["pairs"]:
        assert f"{pair['first']} {pair['second']} {pair['difference']['value']:+.0f}" in page.text


def test_judge_scores_stand_beside_their_noise_floor(run_folder, page):
    found = read_json(run_folder / "judge" / "metrics.json")
    for when in ("before", "after"):
        scores = found[when]
        chance = f"a perfectly calibrated judge with these confidences shows {scores['floor']['median']:.3f} by chance"
        assert f"ECE {scores['ece']:.3f}; {chance}" in page.text
        assert f"{when} {100 * scores['accuracy']['value']:.1f} [" in page.text
    assert "n 120, 60 clusters" in page.text


def test_behaviour_is_shown_by_side_with_evidence_and_trends(run_folder, page):
    found = read_json(run_folder / "tournament" / "metrics.json")["conduct"]
    for row in found["sides"]:
        wins = row["wins"]
        assert f"{row['player']} {row['argues']} answer {100 * wins['value']:.1f} [" in page.text
    assert "Relevance of evidence" in page.text and "side guessed, %" in page.text
    trend = {row["measure"]: row for row in found["trends"]}["valid"]["with_rating"]
    assert f"valid quotes only {trend['value']:+.2f} [".replace("-", "\u2212") in page.text
    assert "How players differ" not in page.text  # of 6 stories nothing can be learnt


def test_refusals_loops_and_strays_stand_beside_the_quotes_of_each_player(run_folder, page):
    assert "words a speech refuses, % loops, % off the question, % speeches" in page.text
    for row in read_json(run_folder / "tournament" / "metrics.json")["behaviour"]:
        for name in ("refuses", "loops", "off_question"):
            assert f"{100 * row[name]['value']:.1f} [" in page.text


def test_the_judges_brier_score_is_shown_in_parts_and_its_accuracy_over_coverage(run_folder, page):
    found = read_json(run_folder / "judge" / "metrics.json")
    for when in ("before", "after"):
        parts, curve = found[when]["parts"], found[when]["coverage"]
        assert f"{when} {parts['reliability']['value']:.3f} [" in page.text
        assert f"{parts['resolution']['value']:.3f} [" in page.text
        assert f"{100 * curve['points'][0]['accuracy']['value']:.1f} [" in page.text
    assert "Accuracy of the surest verdicts after finetuning" in page.text


def test_oversight_and_transfer_give_paired_differences(run_folder, page):
    row = read_json(run_folder / "oversight" / "metrics.json")["differences"][0]
    assert f"debate \u2212 single dpo {100 * row['accuracy']['value']:+.1f}" in page.text
    method = read_json(run_folder / "weak_to_strong" / "metrics.json")["methods"][1]
    assert method["pgr_text"] in page.text
    assert "200 test items in 100 clusters, 3 seeds" in page.text


def test_failed_legs_costs_and_training_are_listed(page):
    assert "q-0 tournament debate A dpo, B base B 1 context: prompt of 9120 tokens" in page.text
    assert "sft sft 1 min 15 s 1 min 10 s 5 000 1 200 34" in page.text and "all 8 min 45 s" in page.text
    assert "rows 400 tokens 52 000 train loss 0.41" in page.text


def test_every_point_says_what_it_is_and_leads_to_its_debates(run_folder, page, html):
    links = {found["href"] for found in page.all("a") if found["href"].startswith("#debates?")}
    for filters in ("stage=tournament&player=dpo&other=sft", "stage=oversight&protocol=single&player=dpo",
                    "stage=oversight&protocol=blind", "stage=tournament&player=base"):  # fmt: skip
        assert f"#debates?{filters}" in links
    assert re.search(r"<title>dpo against base: [0-9.]+ %, n \d+</title>", html)
    assert re.search(r'<a href="#debates\?stage=judge%2C\+after\+finetuning&amp;sure=0.9-1"><path', html)


def test_two_pages_of_one_run_are_the_same_to_the_byte(run_folder, html):
    assert render(load_run(run_folder)) == html


def test_no_transcripts_where_none_are_wanted(run_folder):
    page = Page(render_pages(load_run(run_folder), transcripts=0).share)
    assert not page.all("table", class_="list") and "context: prompt" in page.text
    assert "none was put into this page" in page.text
    with pytest.raises(UserError, match="0 or more"):
        write_report(run_folder, run_folder, transcripts=-1)


def test_empty_run_says_what_is_missing(made, tmp_path):
    page = Page(render(load_run(made.open_run(tmp_path, stages=("sft", "tournament")))))
    assert "Not finished when this page was written: sft, tournament." in page.text
    assert "No section for want of a stage: leaderboard, judge accuracy by protocol, judge calibration" in page.text
    assert "No stage is finished." in page.text
    assert not page.all("svg")


def test_oversight_shows_what_is_left_out_slopes_what_the_judge_knew_and_the_second_judge(run_folder, page):
    assert "Left out: double by dpo, no verdict on any of 7 games." in page.text
    found = read_json(run_folder / "oversight" / "metrics.json")
    slope, second = found["slopes"][0]["accuracy"]["value"], found["second"]["same"]["value"]
    assert number(slope * 100, 1, True) in page.text and f"the same answer {number(second * 100, 1)}" in page.text
    groups = ", ".join(f"{group} {count}" for group, count in found["known"]["questions"].items())
    assert f"Questions: {groups}; 0 without a blind verdict" in page.text
    crossed = read_json(run_folder / "tournament" / "metrics.json")["cross_play"]
    assert len(crossed["pairs"]) == 3 and "all pairs" in page.text
    assert number(crossed["minus_self"]["value"] * 100, 1, True) in page.text


def test_matches_won_what_honesty_pays_and_both_orders_are_shown(run_folder, page):
    tournament = read_json(run_folder / "tournament" / "metrics.json")
    assert "Matches won" in page.text and "1 matches have no winner, since a debate failed." in page.text
    assert number(tournament["matches"]["players"][0]["share"]["value"] * 100, 1) in page.text
    assert f"400 Elo: {number(tournament['honest_wins']['gaps'][-1]['win']['value'] * 100, 1)}" in page.text
    found = read_json(run_folder / "oversight" / "metrics.json")
    assert number(found["honesty"][0]["difference"]["value"], 2, True) in page.text
    assert number(found["consistency"][0]["both"]["value"] * 100, 1) in page.text
    assert f"Cohen's kappa {number(found['second']['kappa']['value'], 2)}" in page.text


@pytest.mark.parametrize("missing", ["sft", "judge", "tournament", "oversight", "weak_to_strong"])
def test_page_without_one_stage_is_whole(run_folder, tmp_path, missing):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, ignore=lambda _, names: [missing] if missing in names else [])
    page = Page(render(load_run(run), transcripts=2))
    assert f"Not finished when this page was written: {missing}." in page.text


@pytest.mark.parametrize("file", ["tournament/debates.jsonl", "dpo/history.json", "dpo/timing.json", "code.json"])
def test_page_without_one_file_is_whole(run_folder, tmp_path, file):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    (run / file).unlink()
    Page(render(load_run(run), transcripts=2))


def test_several_stages_of_a_kind_are_told_apart(made, run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    shutil.copytree(run / "tournament", run / "second round")
    write_json(run / "second round" / "stage.json", {"name": "second round", "kind": "tournament", "fingerprint": "1"})
    page = Page(render(load_run(run), transcripts=2))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert "#debates?stage=second+round&player=dpo" in {found.get("href") for found in page.all("a")}


def test_slope_is_given_over_three_players_and_not_over_two(made, html, tmp_path):
    assert "Slope for 100 Elo points" in html and "ratings made anew in each resample" in html
    run = made.open_run(tmp_path, stages=("tournament",))
    made.tournament_stage(run, [made.question(n) for n in range(4)], skills={"sft": 0.2, "dpo": 0.9})
    assert "Slope for 100" not in render(load_run(run))


def test_nothing_hostile_is_markup(made, tmp_path):
    html = render(load_run(hostile_run(made, tmp_path)))
    page = Page(html.replace(html.split("<script>")[1].split("</script>")[0], ""))
    assert page.all("script") == [{}] and not page.all("img") and not page.all("i") and not page.all("b")
    attributes = {name for _, found in page.elements for name in found}
    assert not {name for name in attributes if name.startswith("on")}
    for said in (
        "<script>document.title = 'owned'</script>",
        "{{ 7 * 7 }}",
        "&lt;b&gt;",
        *NAMES,
        "</table><script>alert(5)",
    ):
        assert " ".join(said.split()) in page.text
    assert "</mark><b>the pipe was moved</b>" in page.text
    assert "</pre><script>alert(6)" in page.text
    assert "\x1b" not in page.text and "\ufffd[31m" in page.text
    assert "\u202e" not in html and "[U+202E]" in page.text


def test_many_failures_are_counted_and_the_first_listed(made, tmp_path):
    run = made.open_run(tmp_path, stages=("tournament",))
    legs = made.tournament_stage(run, [made.question(n) for n in range(3)])
    failure = Failure(seat="A", kind="engine", message="out of memory")
    bad = [legs[0].model_copy(update={"verdict": None, "failure": failure}) for _ in range(60)]
    write(run / "tournament" / "debates.jsonl", [*legs, *bad])
    page = Page(render(load_run(run), transcripts=1))
    assert "engine 60, context 1." in page.text
    assert "The first 50 are listed; 11 more are in debates.jsonl." in page.text


def test_real_human_debates_are_shown(made, tmp_path):
    if not (SHARED / "data/nyu_2023/debates.jsonl").is_file():
        pytest.skip("no shared data: set DEBATE_RL_SHARED to the folder that holds data/nyu_2023")
    from debate_rl.data.sources import nyu
    from debate_rl.judges.human_records import legs

    run = made.open_run(tmp_path, stages=("oversight",))
    made.oversight_stage(run, [made.question(n) for n in range(4)])
    real = legs(nyu.sessions(SHARED / "data/nyu_2023"))
    write(run / "oversight" / "debates.jsonl", real)
    write_report(run, tmp_path / "out", transcripts=6)
    rows = unpacked(tmp_path / "out" / "debates" / "s0-rows.js")
    assert len(rows["rows"]) == len(real) and rows["questions"][0][1] == real[0].transcript.question.text
    stories = [text for path in (tmp_path / "out" / "debates").glob("story-*.js") for text in unpacked(path)]
    assert sorted(stories) == sorted({leg.transcript.question.passage for leg in real})
    assert f"A sample of 6 of {len(real)} debates" in (tmp_path / "out" / "share.html").read_text(encoding="utf-8")


def test_findings_come_first_and_readers_have_a_section(made, tmp_path):
    run = made.open_run(tmp_path / "run", stages=("reading",))
    legs = {
        name: [made.leg(made.question(n), ("dpo", "dpo"), name) for n in range(6)] for name in ("open_book", "blind")
    }
    rows = [{"model": NAMES[0], "protocol": name, "scores": scores(found).model_dump()} for name, found in legs.items()]
    made.put(run, "reading", {"rows": rows, "failed": 1}, legs=[one for found in legs.values() for one in found])
    page = Page(write_report(run, tmp_path / "out").read_text(encoding="utf-8"))
    assert [found["id"] for found in page.all("section")][:2] == ["summary", "reading"]
    assert "open_book" in page.text and "1 failed" in page.text and NAMES[0] in page.text
    assert "judge, open-book accuracy" in page.text and "seeds: [0, 1, 2]" in page.text
    assert "effects" not in [found.get("id") for found in Page(render(load_run(run))).all("section")]


def errors():
    """What errors at two rates do, of every kind."""
    some = {"value": 0.913, "low": 0.81, "high": 0.99, "n": 9, "clusters": 9}
    rows = {
        "ratings": {"spread": some, "rank": some, "elo": {"sft": 1000.0}},
        "preferences": {
            "flipped": some, "target": some, "target_change": some, "pairs": 9, "wrong": None, "gap": some
        },
        "transfer": {"method": "de<b>ate", "labels": some, "supervisor": some, "pgr": None, "breaks_even": 0.237},
    }  # fmt: skip
    kinds = {kind: {f"{kind}-1": [{"rate": rate, **row} for rate in (0, 0.05)]} for kind, row in rows.items()}
    return JudgeErrors.model_validate({"run": "made", "kind": "flip", **kinds})


def test_errors_of_the_judge_are_shown_where_they_were_measured(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    given = write_report(run, tmp_path / "given", errors=errors()).read_text(encoding="utf-8")
    write_json(run / "report" / ERRORS, errors().model_dump(mode="json"))
    kept = write_report(run, tmp_path / "kept").read_text(encoding="utf-8")
    assert kept == given
    page = Page(kept)
    assert "judge-errors" in [found["id"] for found in page.all("section")]
    for text in ("Ratings of ratings-1", "Preference pairs of preferences-1", "Labels of transfer-1", "0.237", "91.3"):
        assert text in page.text
    assert "de<b>ate" not in kept
    assert "judge-errors" not in write_report(run_folder, tmp_path / "none").read_text(encoding="utf-8")
