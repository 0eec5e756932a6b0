"""The pages on which people judge: plain HTML forms, rendered here; no text of a debate is ever markup."""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from debate_rl.errors import UserError
from debate_rl.game.transcript import MARKS, Transcript, seen_by_judge, shown_question, shown_text, with_questions
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.judges.browser.sittings import Bench, Sitting
from debate_rl.judges.human import LEAST, MOST, PlayRound, reward, rounds
from debate_rl.judges.scores import ROUND_COST

HERE = Path(__file__).parent
HEADERS = {
    # Nothing but this server's own two files is loaded, and no script in a page runs.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # The back button asks again, so that it never shows a form that was answered.
    "Cache-Control": "no-store",
    # The address holds the judge's token.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LARGEST_FORM = 4096
"""Bytes of a form that is read."""
LONGEST_QUESTION = 300
"""Characters of a question to the debaters."""
_MARK = re.compile(r"<([vnu]_quote)>(.*?)</\1>", re.DOTALL)
_VERDICT_OF_MARK = {mark: verdict for verdict, mark in MARKS.items()}
# Characters that turn the direction of text around, and could make a speech look like another one.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class Piece(NamedTuple):
    """A stretch of a speech, a quote or not."""

    text: str
    verdict: str
    """exact, near or invalid; empty for plain text."""


def visible(text: str) -> str:
    """A text with its direction marks written out and control characters replaced."""
    return _BIDI.sub(lambda match: f"[U+{ord(match[0]):04X}]", _CONTROL.sub("\ufffd", text))


def pieces(text: str) -> list[Piece]:
    """Cut a text of `shown_text` at its quotes; all other angle brackets have been replaced there."""
    cut: list[Piece] = []
    position = 0
    for match in _MARK.finditer(text):
        cut.append(Piece(visible(text[position : match.start()]), ""))
        cut.append(Piece(visible(match[2]), _VERDICT_OF_MARK[match[1]]))
        position = match.end()
    cut.append(Piece(visible(text[position:]), ""))
    return [piece for piece in cut if piece.text]


class Pages:
    """The pages of a bench.

    Args:
        bench: who judges what.
        tokens: token of each judge's address, by the name of its verdicts.
        others: what other judges gave the correct answer, by game and judge; told after the decision.
        play_round: plays the rounds of a bench whose games are live.
    """

    def __init__(
        self,
        bench: Bench,
        tokens: Mapping[str, str],
        others: Mapping[str, Mapping[str, float]] | None = None,
        play_round: PlayRound | None = None,
    ) -> None:
        self.bench, self.tokens, self.others, self.play_round = bench, tokens, others or {}, play_round
        self._models = asyncio.Lock()
        self._rounds: dict[str, asyncio.Task[str]] = {}
        """The round that is being written for each judge; its result says why it could not be, if so."""
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters["visible"] = visible

    def app(self) -> Starlette:
        """The web application."""
        routes = [
            Route("/style.css", lambda request: FileResponse(HERE / "style.css", headers=HEADERS)),
            Route("/timer.js", lambda request: FileResponse(HERE / "timer.js", headers=HEADERS)),
            Route("/j/{token}", self.home),
            Route("/j/{token}/start", self.start, methods=["POST"]),
            Route("/j/{token}/answer", self.answer, methods=["POST"]),
            Route("/j/{token}/pause", self.pause, methods=["POST"]),
            Route("/j/{token}/resume", self.resume, methods=["POST"]),
            Route("/j/{token}/again", self.again, methods=["POST"]),
            Route("/j/{token}/drop", self.drop, methods=["POST"]),
            Route("/j/{token}/feedback/{game}", self.feedback),
        ]
        # Another site's name that leads to this machine must not reach the pages.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        handlers: Any = {HTTPException: self.refused, UserError: self.failed, OSError: self.failed}
        return Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers)

    async def home(self, request: Request) -> Response:
        """Wherever the judge is: before a debate, in a round, in a pause, or at the end."""
        judge = self._judge(request)
        sitting = self.bench.sitting(judge)
        if sitting is not None and sitting.waiting:
            return self._playing(request, sitting)
        if sitting is not None and sitting.running_since is not None:
            return self._round(request, sitting, _again(request, sitting))
        scored = _scored(self.bench.legs(judge))
        return self._render("wait.j2", request, judge, sitting=sitting, scored=scored, live=self.bench.live)

    async def start(self, request: Request) -> Response:
        """Open the next debate."""
        self.bench.start(self._judge(request))
        return self._to(request)

    async def pause(self, request: Request) -> Response:
        """Stop the clock."""
        self.bench.pause(self._judge(request))
        return self._to(request)

    async def resume(self, request: Request) -> Response:
        """Go on after a pause."""
        self.bench.resume(self._judge(request))
        return self._to(request)

    async def again(self, request: Request) -> Response:
        """Have a round written that failed before."""
        task = self._rounds.get(self._judge(request))
        if task is not None and task.done():
            del self._rounds[self._judge(request)]
        return self._to(request)

    async def drop(self, request: Request) -> Response:
        """Leave a debate whose debaters can not go on."""
        judge = self._judge(request)
        task = self._rounds.get(judge)
        if task is not None and task.done():
            del self._rounds[judge]
            self.bench.drop(judge)
        return self._to(request)

    async def answer(self, request: Request) -> Response:
        """Take the probability after a round. It is on disk before the next page is shown."""
        judge = self._judge(request)
        form = await _form(request)
        game, round_, percent = form.get("game", ""), form.get("round", ""), form.get("percent", "")
        sitting = self.bench.past(judge, game)
        if sitting is None or not round_.isdecimal() or len(round_) > 6:
            return self._to(request)
        if int(round_) == sitting.round and not sitting.finished and not _is_probability(percent):
            note = f"Not read: write a number from {LEAST:g} to {MOST:g}."
            return self._round(request, sitting, note, status=400)
        question = form.get("question", "")[:LONGEST_QUESTION]
        taken = self.bench.answer(judge, game, int(round_), _number(percent), form.get("then") == "decide", question)
        again = "" if taken else f"?again={int(round_)}"
        if sitting.finished:
            return self._to(request, f"/feedback/{game}{again}")
        return self._to(request, again)

    async def feedback(self, request: Request) -> Response:
        """What a decision earned, after it was made."""
        judge, game = self._judge(request), request.path_params["game"]
        sitting, leg = self.bench.past(judge, game), self.bench.leg(judge, game)
        if sitting is None or leg is None or not sitting.finished:
            return self._to(request)
        scored = _scored(self.bench.legs(judge))
        note = _again(request, sitting)
        # Only the names of models: people are not told what others said.
        models = {name: p for name, p in self.others.get(game, {}).items() if not name.startswith("human/")}
        facts = _outcome(leg) | {"time": _clock(sitting.counted), "models": models}
        return self._render("feedback.j2", request, judge, note=note, sitting=sitting, scored=scored, **facts)

    async def refused(self, request: Request, error: Exception) -> Response:
        """A page that does not exist."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        said = "This is not the address of a judge. Ask whoever invited you for the whole link."
        if status == 413:
            said = "That is more than a form of this page holds."
        return self._page("error.j2", status, said=said)

    async def failed(self, request: Request, error: Exception) -> Response:
        """An answer that could not be kept."""
        return self._page("error.j2", 500, said=f"Not saved: {error}")

    def _playing(self, request: Request, sitting: Sitting) -> Response:
        """The page of a round that is being written. It asks again each second, and begins with the writing."""
        judge = sitting.judge
        task = self._rounds.get(judge)
        if task is None:
            task = self._rounds[judge] = asyncio.create_task(self._write_round(sitting))
        fault = task.result() if task.done() else ""
        asked = sitting.answers[-1].question if sitting.answers else ""
        facts: dict[str, Any] = {"sitting": sitting, "rounds": len(sitting.ends), "fault": fault, "asked": asked}
        return self._render("playing.j2", request, judge, **facts)

    async def _write_round(self, sitting: Sitting) -> str:
        """Have the debaters write the next round of a judge's game; says why they could not, else nothing."""
        if self.play_round is None:
            return "This server has no debaters."
        # One game at a time: the models are not shared between threads. The pages of other judges go on meanwhile.
        async with self._models:
            try:
                played = await run_in_threadpool(self.play_round, sitting.game)
                if isinstance(played, Failure):
                    return played.message
                self.bench.spoke(sitting.judge, sitting.id, played)
            except Exception as error:  # whatever goes wrong while models write, the judge reads it and may try again
                return str(error) or type(error).__name__
        del self._rounds[sitting.judge]
        return ""

    def _round(self, request: Request, sitting: Sitting, note: str, status: int = 200) -> Response:
        """The page of the round that is to be answered."""
        game = sitting.game
        ends = sitting.ends
        seconds = sitting.seconds(self.bench.clock())
        facts = {
            "sitting": sitting,
            "question": game.question.text,
            "answers": game.question.answers,
            "parts": _parts(game, ends[: sitting.round], sitting.given),
            "rounds": len(ends),
            "alone": len({speech.side for speech in game.speeches}) == 1,
            "longest": LONGEST_QUESTION,
            "seconds": int(seconds),
            "time": _clock(seconds),
            "note": note,
            "least": LEAST,
            "most": MOST,
            "cost": ROUND_COST,
        }
        return self._render("round.j2", request, sitting.judge, status, **facts)

    def _judge(self, request: Request) -> str:
        """The judge of an address.

        Raises:
            HTTPException: nobody has this token.
        """
        token = request.path_params["token"].encode()
        for judge, known in self.tokens.items():
            if hmac.compare_digest(token, known.encode()):
                return judge
        raise HTTPException(404)

    def _to(self, request: Request, rest: str = "") -> Response:
        """Lead to one of the judge's pages; a reload there sends nothing twice."""
        return RedirectResponse(f"/j/{request.path_params['token']}{rest}", 303, HEADERS)

    def _render(self, name: str, request: Request, judge: str, status: int = 200, **facts: Any) -> Response:
        """A page of a judge."""
        progress = self.bench.progress(judge)
        base = f"/j/{request.path_params['token']}"
        more = self.bench.next_game(judge) is not None
        return self._page(name, status, base=base, judge=judge, progress=progress, more=more, **facts)

    def _page(self, name: str, status: int, **facts: Any) -> Response:
        return HTMLResponse(self.templates.get_template(name).render(**facts), status, HEADERS)


def listen(port: int) -> socket.socket:
    """Take a port of this machine's own address; 0 takes any free one.

    Raises:
        UserError: the port is in use or can not be taken.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A server that was killed leaves its port waiting; one that still listens keeps it all the same.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("127.0.0.1", port))
        server.listen()
    except (OSError, OverflowError) as error:
        server.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--port {port}: {reason}; name another port, or 0 for any free one") from error
    return server


def serve(app: Starlette, server: socket.socket) -> None:
    """Answer until the process is told to stop."""
    # Without an access log: its lines would hold the tokens.
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[server])


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise HTTPException(413)
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _number(text: str) -> float:
    """A typed number; NaN where it is none."""
    try:
        return float(text.strip().rstrip("%"))
    except ValueError:
        return float("nan")


def _is_probability(text: str) -> bool:
    """Whether a typed text is a probability that can be taken."""
    return LEAST <= _number(text) <= MOST


def _clock(seconds: float) -> str:
    """Minutes and seconds, such as 4:07."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def _parts(game: Transcript, ends: tuple[int, ...], given: list[float]) -> list[dict[str, Any]]:
    """The rounds that a judge may read by now, with what it said after each."""
    parts = []
    start = 0
    for number, end in enumerate(ends, start=1):
        speeches = []
        asked: list[str] = []
        for speech, questions in with_questions(seen_by_judge(game, game.present), game.asked):
            if start <= speech.turn < end:
                speeches.append({"side": speech.side, "pieces": pieces(shown_text(speech, game.protocol))})
                asked += map(visible, filter(None, map(shown_question, questions)))
        said = f"{100 * given[number - 1]:g}" if number <= len(given) else None
        parts.append({"number": number, "speeches": speeches, "asked": asked, "said": said})
        start = end
    return parts


def _again(request: Request, sitting: Sitting) -> str:
    """What to say to someone who answered a round a second time; empty for everybody else."""
    asked = request.query_params.get("again", "")
    if not asked.isdecimal() or len(asked) > 6:
        return ""
    number = int(asked)
    if 1 <= number <= len(sitting.answers):
        percent = sitting.answers[number - 1].percent
        return f"Round {number} was answered before, with {percent:g} %; the first answer stays."
    return "That round can not be answered now; nothing was changed."


def _outcome(leg: JudgedDebate) -> dict[str, Any]:
    """Which answer was correct, and what the judgement earned."""
    question, p = leg.transcript.question, leg.p_correct
    correct = question.correct or 0
    return {
        "side": "AB"[correct],
        "correct": question.answers[correct],
        "question": question.text,
        "percent": None if p is None else f"{100 * p:g}",
        "right": None if p is None or p == 0.5 else p > 0.5,
        "bits": reward(leg),
        "paid": rounds(leg),
        "cost": ROUND_COST,
    }


def _scored(legs: list[JudgedDebate]) -> dict[str, Any]:
    """A judge's debates so far: number, share right with a half for .5, mean score."""
    p = [leg.p_correct for leg in legs if leg.p_correct is not None]
    bits = [bit for bit in map(reward, legs) if bit is not None]
    if not bits:
        return {"n": 0, "right": 0.0, "bits": 0.0}
    right = sum(0.5 if one == 0.5 else float(one > 0.5) for one in p)
    return {"n": len(bits), "right": right / len(p), "bits": sum(bits) / len(bits)}
