"""The server engine: any OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, an API), many requests at a time.

Put a `StoredEngine` in front of it and a `Parallel` in front of that, so that nothing is paid for twice. Texts drawn
from one prompt are one request with `n`, where the server has it. Of several replicas one prefix goes to one of them,
whose cache holds it. Adapters are asked for by name (see `served`), tokens and money are counted (see `budget`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from debate_rl.engines.marks import neutral
from debate_rl.engines.parallel import Parts, side_by_side
from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores, answer_distinct
from debate_rl.engines.server.adapters import Served
from debate_rl.engines.server.budget import Budget, Paid, most_prompt_tokens
from debate_rl.engines.server.endpoint import MALFORMED, REFUSED, UNREACHABLE, Endpoint
from debate_rl.engines.server.first_token import candidate_scores, logprob
from debate_rl.engines.server.router import Router
from debate_rl.errors import UserError
from debate_rl.records import clean_text, digest

TOP = 20
"""Log-probabilities asked for: what OpenAI gives at most, and vLLM by default."""
MOST_N = 64
"""Texts of one request, at most."""
NO_LOGPROBS = "log-probabilities"
"""Kind of the failure of a server that gives none."""
SLACK = 4
"""Requests that a replica may have under way beyond the others, for its cache's sake."""
DOWN = 30.0
"""Seconds for which a replica that did not answer is passed over."""
_MOST_TOKENS = 10**9
"""Of one answer: what is above it is no count, and would spend any budget."""
_OPTIONAL = ("max_tokens", "temperature", "top_p", "seed", "stop_token_ids", "stop", "n")
"""Request fields that some models refuse."""
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "n": 1}
"""What a server takes where a field is left out."""
_UNSUPPORTED = re.compile(
    r"unsupported|not (?:be )?support|n't support|unrecogni[sz]ed|unknown|unexpected|extra|incompatible|deprecated"
    r"|not (?:permitted|allowed|available|implemented)|can ?not|can't|only the default",
    re.IGNORECASE,
)
"""Words of servers that take a field in no way; `temperature must be below 2` is about its value alone."""
_ELSEWHERE = (UNREACHABLE, "time-out", "connection")
"""Failures after which another replica is asked."""


class ServerEngine:
    """Generate and choose at an OpenAI-compatible endpoint.

    Args:
        url: of the API, for example http://localhost:8000/v1; several are replicas of one another.
        key_env: environment variable that holds the key; None sends none. The key is in no record and no message.
        concurrency: requests under way at a time, over all replicas.
        retries: further tries after the first one.
        timeout: seconds without a byte from the server until a try is given up.
        backoff: seconds before the first retry, doubled for each further one, up to half a minute, plus as much jitter.
        deployed: names the weights behind the url in the store; None takes the (first) url for it.
        resolve: turns the name of an adapter into its folder, where it is one of ours.
        load_adapters: have vLLM load adapters that it lacks.
        budget: counts what is paid; None counts without limits.
        keep_tokens: ask for token ids, of prompts and texts; servers that have none are asked for texts alone.
        ends: token ids at which texts end, beside the server's own; only servers like vLLM know them.
        refused: by model the request fields that it does not take; else they are learnt from its first refusal.

    Raises:
        UserError: the url is not one, or the key is not set.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        key_env: str | None = None,
        concurrency: int = 16,
        retries: int = 5,
        timeout: float = 120.0,
        backoff: float = 0.5,
        deployed: str | None = None,
        resolve: Callable[[str], str] = str,
        load_adapters: bool = False,
        budget: Budget | None = None,
        keep_tokens: bool = False,
        ends: Iterable[int] = (),
        refused: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        self._replicas = [Endpoint(one, key_env, concurrency, retries, timeout, backoff) for one in urls]
        self.url = self._replicas[0].url
        self.concurrency = concurrency
        self.deployed = deployed or self.url
        self.budget = budget or Budget()
        self._served = Served(resolve, load_adapters)
        self._router = Router(len(urls))
        self._loads = [0] * len(urls)
        self._down = [0.0] * len(urls)
        self._lock = Lock()
        self._single = False
        self._exact: bool | None = None
        """Whether whole candidates can be scored; None until that was tried."""
        self._ids = keep_tokens
        self._ends = sorted(ends)
        self._refused: dict[str, frozenset[str]] = {name: frozenset(fields) for name, fields in (refused or {}).items()}
        """By model the fields that it does not take."""
        self.prompt_tokens = 0
        self.new_tokens = 0

    def revision(self, model: str, adapter: str | None) -> str:
        """Name of what answers: the deployment and the model's or adapter's name. A server shows no weights."""
        return digest(["server", self.deployed, self._served.name(model, adapter)])

    def load(self, model: str, adapter: str) -> None:
        """Have all replicas that answer load an adapter, before anything is asked of it.

        Raises:
            UserError: one refuses, or none answers.
        """
        lost = [self._served.check(one, model, adapter) for one in self._replicas]
        first = lost[0]
        if first is not None and all(lost):
            raise UserError(first.message)

    def unload(self, adapter: str) -> list[str]:
        """Have all replicas let go of an adapter; what those said that did not."""
        return [said for one in self._replicas if (said := self._served.drop(one, adapter)) is not None]

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Texts from one prompt together, everything else alone, dealt out to as many lanes as may be under way."""
        groups: dict[Any, list[int]] = {}
        listed: list[Request | Choice] = [*questions]
        for at, question in enumerate(listed):
            together = isinstance(question, Request) and not self._single
            key: Any = _prompt(question) if together else at
            groups.setdefault(key, []).append(at)
        cut = [group[at : at + MOST_N] for group in groups.values() for at in range(0, len(group), MOST_N)]
        return [cut[lane :: self.concurrency] for lane in range(min(self.concurrency, len(cut)))]

    def enter(self, lane: int) -> None:
        """Any thread may ask for anything."""

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request; one that fails after all retries is a failure, the others go on.

        Raises:
            UserError: no server is there, it refuses the key, has no such model or adapter, or the budget is spent.
        """
        return answer_distinct(requests, self._generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score candidates by the log-probabilities of the answer's first token.

        Where a candidate is not among the likeliest tokens the whole candidates are scored, by servers that can (vLLM:
        `/tokenize`, and `echo` of completions); of others it gets what is left for it at most.

        Raises:
            UserError: as for `generate`.
        """
        return answer_distinct(choices, self._choose)

    def _generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Texts of distinct requests, several at a time."""
        answers: dict[int, Completion | EngineFailure] = {}

        def work(part: list[int]) -> None:
            answers.update(zip(part, self._write([requests[at] for at in part]), strict=True))

        side_by_side(self.plan(requests), work)
        return [answers[at] for at in range(len(requests))]

    def _choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Scores of distinct choices, several at a time."""
        answers: dict[int, Scores | EngineFailure] = {}

        def work(part: list[int]) -> None:
            answers.update((at, self._score(choices[at])) for at in part)

        side_by_side(self.plan(choices), work)
        return [answers[at] for at in range(len(choices))]

    def _write(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Texts from one prompt, in one request where that is possible."""
        first, sampling = requests[0], requests[0].sampling
        wanted = 1 if self._single or sampling.temperature == 0 else len(requests)
        body = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": _seed(first),
            **({"n": wanted} if wanted > 1 else {}),
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({"stop_token_ids": self._ends} if self._ends else {}),
            **({"return_token_ids": True} if self._ids else {}),
        }
        reply = self._chat(first, body, wanted * sampling.max_new_tokens)
        if isinstance(reply, EngineFailure) and "return_token_ids" in body and "return_token_ids" in reply.message:
            self._ids = False
            return self._write(requests)
        if isinstance(reply, EngineFailure) and reply.kind in ("server", "request") and wanted > 1:
            return self._alone(requests)
        texts = reply if isinstance(reply, EngineFailure) else self._texts(first, reply)
        if isinstance(texts, EngineFailure):
            texts = [texts] * wanted
        elif len(texts) < wanted:
            self._single = True
        texts = texts[:wanted]
        rest = requests[len(texts) :]
        return [*texts, *(self._write(rest) if rest else [])]

    def _alone(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Texts from one prompt where the server refused to write several at a time, which it may say in many ways."""
        first = self._write(requests[:1])
        if isinstance(first[0], EngineFailure):
            return first * len(requests)  # it was something else, and may pass
        self._single = True
        return [*first, *self._write(requests[1:])]

    def _texts(self, request: Request, reply: dict[str, Any]) -> list[Completion | EngineFailure] | EngineFailure:
        """Each text of an answer, at least one; or why it is no answer."""
        url = self.url
        try:
            said = [
                (choice["message"]["content"], choice["finish_reason"], _ids(choice.get("token_ids")))
                for choice in reply["choices"]
            ]
            usage, prompt = _usage(reply), _ids(reply.get("prompt_token_ids"))
            if not said:
                raise IndexError("no choices")
        except MALFORMED as error:
            return EngineFailure(kind="malformed", message=f"{url} gave an answer without a text ({error!r})")
        shares = _shares(usage[1], [len(ids or text) if isinstance(text, str) else 0 for text, _, ids in said])
        texts: list[Completion | EngineFailure] = []
        for (text, finish, ids), new in zip(said, shares, strict=True):
            if not isinstance(text, str) or finish not in ("stop", "length"):
                kind = "filtered" if finish == "content_filter" else "no text"
                texts.append(EngineFailure(kind=kind, message=f"{url} gave no text (finish reason {finish!r})"))
                continue
            cut = _before_stop(text, request.sampling.stop)
            if cut is not None:  # only where the model takes no `stop`
                text, finish, ids = cut, "stop", None
            texts.append(
                Completion(
                    text=clean_text(text),
                    prompt_tokens=usage[0],
                    new_tokens=new,
                    finish=finish,
                    revision=self.revision(request.model, request.adapter),
                    tokens=ids,
                    prompt_ids=prompt,
                )
            )
        return texts

    def _score(self, choice: Choice) -> Scores | EngineFailure:
        """The log-probabilities of one choice's candidates."""
        # At temperature 1 servers that report the sampled distribution and those that report the model's agree.
        body = {"max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": True, "top_logprobs": TOP}
        reply = self._chat(choice, body, 1)
        if isinstance(reply, EngineFailure):
            return self._refusal(reply)
        try:
            content = (reply["choices"][0].get("logprobs") or {}).get("content")
            if not content:
                return self._refusal(EngineFailure(kind=NO_LOGPROBS, message=""))
            top = [(str(one["token"]), logprob(one["logprob"])) for one in content[0]["top_logprobs"]]
            if not top:
                raise IndexError("no tokens")
            tokens = _usage(reply)[0]
        except MALFORMED as error:
            return EngineFailure(kind="malformed", message=f"{self.url} gave log-probabilities of no form ({error!r})")
        seen = {token.strip() for token, _ in top}
        shown = all(candidate.strip() in seen for candidate in choice.candidates)
        whole = None if shown else self._whole(choice)
        if isinstance(whole, EngineFailure):
            return whole
        found = whole or candidate_scores(choice.candidates, top)
        if found is None:
            first = ", ".join(repr(token) for token, _ in top[:5])
            return EngineFailure(
                kind="neither",
                message=f"the first token does not tell which of {choice.candidates} is meant (likeliest: {first}); "
                "use a prompt set whose candidates are labels, or a judge of kind 'stated'",
            )
        return Scores(logprobs=found, prompt_tokens=tokens, revision=self.revision(choice.model, choice.adapter))

    def _whole(self, choice: Choice) -> tuple[float, ...] | EngineFailure | None:
        """Log-probability of each whole candidate after the prompt; None where the server can not tell.

        A fault that may pass is a failure: taken for a refusal it would turn exact probabilities into bounds.
        """
        if self._exact is False:
            return None
        scores = []
        try:
            prompt = self._tokens(choice, {"messages": _sent(choice.messages), "add_generation_prompt": True})
            for candidate in choice.candidates:
                ids = self._tokens(choice, {"prompt": neutral(candidate), "add_special_tokens": False})
                end = len(prompt) + len(ids)
                body = {"prompt": [*prompt, *ids], "max_tokens": 1, "temperature": 1.0, "echo": True, "logprobs": 1}
                reply = _answered(self._ask(choice, "/completions", body, end, 1))
                listed = reply["choices"][0]["logprobs"]["token_logprobs"]
                if len(listed) < end:
                    raise IndexError("too few")
                scores.append(sum(map(logprob, listed[len(prompt) : end])))
        except _Lost as lost:
            if lost.failure.kind not in (REFUSED, "request"):
                return lost.failure
            self._exact = False
            return None
        except MALFORMED as error:
            if self._exact:
                return EngineFailure(kind="malformed", message=f"{self.url} gave scores of no form ({error!r})")
            self._exact = False
            return None
        self._exact = True
        return tuple(scores)

    def _tokens(self, choice: Choice, asked: dict[str, Any]) -> list[int]:
        """Token ids by the server.

        Raises:
            _Lost: it gave no answer; or what `MALFORMED` lists, where the answer has another form.
        """
        reply = _answered(self._ask(choice, "/tokenize", asked, 0, 0, root=True))
        tokens = [int(token) for token in reply["tokens"]]
        if not tokens:
            raise IndexError("no tokens")
        return tokens

    def _refusal(self, failure: EngineFailure) -> EngineFailure:
        """Say what to change where the server gives no log-probabilities."""
        if failure.kind != NO_LOGPROBS and "logprob" not in failure.message:
            return failure
        said = f" ({failure.message})" if failure.message else ""
        return EngineFailure(
            kind=NO_LOGPROBS,
            message=f"{self.url} gives no log-probabilities{said}; set `judge: {{kind: stated}}`, or serve the judge "
            "with vLLM, SGLang or the transformers engine",
        )

    def _chat(self, question: Request | Choice, body: dict[str, Any], new: int) -> dict[str, Any] | EngineFailure:
        """One chat completion."""
        name = self._served.name(question.model, question.adapter)
        reply: dict[str, Any] | EngineFailure
        while True:
            sent = {"messages": _sent(question.messages), **self._accepted(name, body)}
            reply = self._ask(question, "/chat/completions", sent, most_prompt_tokens(question.messages), new)
            if not isinstance(reply, EngineFailure) or not self._learn(name, sent, reply):
                break
        if isinstance(reply, EngineFailure) and reply.kind == REFUSED:
            raise UserError(reply.message)
        return reply

    def _accepted(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """A request's fields as a model takes them (see `_learn`)."""
        refused = self._refused.get(name, frozenset())
        accepted = {key: value for key, value in body.items() if key not in refused}
        if "max_tokens" in refused and "max_tokens" in body:
            accepted["max_completion_tokens"] = body["max_tokens"]
        return accepted

    def _learn(self, name: str, sent: dict[str, Any], failure: EngineFailure) -> bool:
        """Take from a refusal which field a model does not know; whether there is something new to try.

        Newer models of OpenAI want `max_completion_tokens`, and no temperature or top_p. Log-probabilities can not be
        done without, so their refusal stands.
        """
        if failure.kind != "request" or not _UNSUPPORTED.search(failure.message):
            return False
        named = {key: re.search(rf"\b{key}\b", failure.message) for key in _OPTIONAL if key in sent}
        fields = [(sent[key] != _DEFAULTS.get(key), at.start(), key) for key, at in named.items() if at is not None]
        if not fields:
            return False
        # Of fields that do not go together one is left out: the one that changes nothing, else the first that is named.
        matters, _, field = min(fields)
        with self._lock:
            known = self._refused.get(name, frozenset())
            self._refused[name] = known | {field}
        if matters and field != "max_tokens" and field not in known:
            print(
                f"{name} takes no {field}: it is left out from now on, see engine.refused ({failure.message})",
                file=sys.stderr,
                flush=True,
            )
        return True

    def _ask(
        self, question: Request | Choice, path: str, body: dict[str, Any], prompt: int, new: int, root: bool = False
    ) -> dict[str, Any] | EngineFailure:
        """One request, at another replica where the first is gone; at most so many tokens, of which count is kept.

        Raises:
            UserError: no replica is there, one lacks the model or adapter, or the budget is spent.
        """
        name = self._served.name(question.model, question.adapter)
        text = name + "".join(message.content for message in question.messages)
        reply: dict[str, Any] | EngineFailure = EngineFailure(kind=UNREACHABLE, message=f"no answer from {self.url}")
        for _ in self._replicas:
            at = self._begin(text)
            try:
                lost = self._served.check(self._replicas[at], question.model, question.adapter)
                sent = {"model": name, **body}
                reply = self._paid(at, name, path, sent, prompt, new, root) if lost is None else lost
            finally:
                with self._lock:
                    self._loads[at] -= 1
            if not isinstance(reply, EngineFailure) or reply.kind not in _ELSEWHERE:
                return reply
            self._down[at] = time.monotonic() + DOWN
        if isinstance(reply, EngineFailure) and reply.kind == UNREACHABLE:
            raise UserError(reply.message)
        return reply

    def _paid(
        self, at: int, name: str, path: str, body: dict[str, Any], prompt: int, new: int, root: bool
    ) -> dict[str, Any] | EngineFailure:
        """One request within the budget."""
        if not new:  # tokenizing is free
            return self._replicas[at].post(path, body, root)
        with self.budget.hold(name, prompt, new):
            reply = self._replicas[at].post(path, body, root)
            if not isinstance(reply, EngineFailure):
                told = _usage_or_none(reply)
                read, made, cached = told or (prompt, new, 0)  # who does not tell is taken to have charged the most
                self.budget.pay(Paid(model=name, prompt=read, new=made, cached=cached))
                with self._lock:
                    self.prompt_tokens += read if told else 0
                    self.new_tokens += made if told else 0
        return reply

    def _begin(self, text: str) -> int:
        """Choose a replica for a text."""
        with self._lock:
            now = time.monotonic()
            loads = [
                float("inf") if down > now else float(load) for load, down in zip(self._loads, self._down, strict=True)
            ]
            at = self._router.place(text, loads, SLACK)
            self._loads[at] += 1
            return at


class _Lost(Exception):
    """A request that failed, on the way out of a longer task."""

    def __init__(self, failure: EngineFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _answered(reply: dict[str, Any] | EngineFailure) -> dict[str, Any]:
    """An answer.

    Raises:
        _Lost: there is none.
    """
    if isinstance(reply, EngineFailure):
        raise _Lost(reply)
    return reply


def _seed(request: Request) -> int:
    """The seed that is sent: servers key their noise on it alone, so it differs for every prompt as well as draw."""
    asked = [[one.model_dump() for one in request.messages], request.sampling.model_dump(mode="json"), request.seed]
    return int(digest(asked), 16) % (1 << 31)


def _prompt(question: Request | Choice) -> tuple[Any, ...]:
    """What texts from one prompt have in common: all but the seed."""
    sampling = question.sampling if isinstance(question, Request) else None
    return (question.messages, question.model, question.adapter, sampling)


def _sent(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as they are sent."""
    return [{"role": m.role, "content": neutral(m.content)} for m in messages]


def _ids(told: Any) -> tuple[int, ...] | None:
    """Token ids, None where a server tells none."""
    return tuple(int(one) for one in told) if told else None


def _before_stop(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop text; None where none stands in it."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places)] if places else None


def _usage(reply: dict[str, Any]) -> tuple[int, int, int]:
    """Tokens of the prompt, of all texts, and of the prompt's those from the cache; 0 where it is not told.

    Raises:
        ValueError: they are no counts; or what else `MALFORMED` lists.
    """
    usage = reply.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    told = usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("cached_tokens")
    prompt, new, cached = (int(count or 0) for count in told)
    if not all(0 <= count <= _MOST_TOKENS for count in (prompt, new, cached)):
        raise ValueError(f"{prompt}, {new} and {cached} are no counts of tokens")
    return prompt, new, cached


def _usage_or_none(reply: dict[str, Any]) -> tuple[int, int, int] | None:
    """The same, None where the server tells nothing that can be read."""
    try:
        found = _usage(reply)
    except MALFORMED:
        return None
    return found if found[0] else None


def _shares(tokens: int, lengths: Sequence[int]) -> list[int]:
    """Tokens of each text of one answer, by their lengths: servers tell their sum."""
    whole, before, found = max(sum(lengths), 1), 0, []
    for end in (sum(lengths[: at + 1]) for at in range(len(lengths))):
        found.append(round(tokens * end / whole) - round(tokens * before / whole))
        before = end
    if not sum(lengths):
        found[0] = tokens
    return found
