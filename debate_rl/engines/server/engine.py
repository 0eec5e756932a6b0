"""The server engine: any OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, an API), many requests at a time.

Put a `StoredEngine` in front of it and a `Parallel` in front of that, so that nothing is paid for twice. Texts drawn
from one prompt are one request with `n`, where the server has it. Adapters are asked for by name (see `adapters`),
tokens and money are counted (see `budget`). Several servers stand behind one url: sharing requests out is their task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any

from debate_rl.engines.chat import text_before_stop
from debate_rl.engines.marks import neutral
from debate_rl.engines.parallel import Parts, side_by_side
from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores, answer_distinct
from debate_rl.engines.server.adapters import Served
from debate_rl.engines.server.answers import (
    LostAnswer,
    RawText,
    answer_or_raise,
    count_every_text,
    read_first_token,
    read_texts,
    read_usage,
    shares,
    token_ids,
    usage_or_none,
)
from debate_rl.engines.server.budget import Budget, Paid, most_prompt_tokens
from debate_rl.engines.server.endpoint import MALFORMED, REFUSED, UNREACHABLE, Endpoint
from debate_rl.engines.server.extra_fields import extra_fields, refused_grammar, shows_llguidance
from debate_rl.engines.server.first_token import candidate_scores, logprob
from debate_rl.engines.server.refused_fields import RefusedFields
from debate_rl.engines.server.settings import ServerSettings
from debate_rl.errors import UserError
from debate_rl.records import clean_text, digest

TOP = 20
"""Log-probabilities asked for: what OpenAI gives at most, and vLLM by default."""
MOST_N = 64
"""Largest number of texts of one request."""
_GRAMMAR = re.compile("grammar|guid|structured|ebnf", re.IGNORECASE)
"""How servers name what they refuse in a grammar."""
_LOGPROB = {"logprobs": 1, "return_tokens_as_token_ids": True}
"""Fields by which vLLM reports the log-probability of the token that it drew, before limits on what it may draw."""
NO_LOGPROBS = "log-probabilities"
"""Kind of failure: the server gives no log-probabilities."""


class ServerEngine:
    """Generate and choose at an OpenAI-compatible endpoint.

    Args:
        settings: the server, and how patiently it is asked.
        resolve: turns the name of an adapter into its folder, where it is one of ours.
        budget: counts what is paid; None counts without limits.
        keep_tokens: ask for token ids, of prompts and texts; servers that have none are asked for texts alone.
        ends: token ids at which texts end, beside the server's own; only servers like vLLM know them.
        marks: lines by which the template of its models opens a turn, where texts end as well (`chat.turn_marks`).

    Raises:
        UserError: the url is not valid, or the key is not set.
    """

    def __init__(
        self,
        settings: ServerSettings,
        resolve: Callable[[str], str] = str,
        budget: Budget | None = None,
        keep_tokens: bool = False,
        ends: Iterable[int] = (),
        marks: Sequence[str] = (),
    ) -> None:
        self._endpoint = Endpoint(settings)
        self.url = self._endpoint.url
        self.concurrency = settings.concurrency
        self.deployed = settings.deployed or self.url
        self.budget = budget or Budget()
        self._served = Served(self._endpoint, resolve, settings.load_adapters)
        self._fields = RefusedFields(settings.refused)
        self._lock = Lock()
        self._one_text = False
        """Whether the server writes one text a request only; learnt from its first answer to `n`."""
        self._scores_whole: bool | None = None
        """Whether the server can score whole candidates; None until that was tried."""
        self._software = settings.software
        self._takes_grammars = settings.software != "llama.cpp"
        """Whether a grammar may be sent; llama.cpp has to show it first."""
        self._keep_tokens = keep_tokens
        self._ends = sorted(ends)
        self._marks = tuple(marks)
        self.prompt_tokens = 0
        self.new_tokens = 0

    def revision(self, model: str, adapter: str | None) -> str:
        """Fingerprint of what answers: the deployment and the model's or adapter's name. A server shows no weights."""
        return digest(["server", self.deployed, self._served.name(model, adapter)])

    def load(self, model: str, adapter: str) -> None:
        """Have the server load an adapter, before anything is asked of it.

        Raises:
            UserError: it refuses, or does not answer.
        """
        failure = self._served.check(model, adapter)
        if failure is not None:
            raise UserError(failure.message)

    def unload(self, adapter: str) -> str | None:
        """Have the server unload an adapter; its complaint if it did not."""
        return self._served.drop(adapter)

    def plan(self, questions: Sequence[Request] | Sequence[Choice]) -> Parts:
        """Group texts from one prompt, everything else alone, and deal the groups out to the lanes in turn."""
        groups: dict[Any, list[int]] = {}
        for at, question in enumerate(questions):
            key: Any = at
            if isinstance(question, Request) and not self._one_text:
                key = _all_but_seed(question)
            groups.setdefault(key, []).append(at)
        parts = []
        for group in groups.values():
            for start in range(0, len(group), MOST_N):
                parts.append(group[start : start + MOST_N])
        lanes = min(self.concurrency, len(parts))
        return [parts[lane :: self.concurrency] for lane in range(lanes)]

    def enter(self, lane: int) -> None:
        """Does nothing: any thread may ask for anything."""

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request; one that fails after all retries is a failure, the others go on.

        Raises:
            UserError: no server is there, it refuses the key, has no such model or adapter, or the budget is spent.
        """
        return answer_distinct(requests, self._generate)

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Score candidates by the log-probabilities of the answer's first token.

        Where a candidate is not among the likeliest tokens the whole candidates are scored, by servers that can (vLLM:
        `/tokenize`, and `allowed_token_ids` of completions); at others it gets the most that is left for it.

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
            for at in part:
                answers[at] = self._score(choices[at])

        side_by_side(self.plan(choices), work)
        return [answers[at] for at in range(len(choices))]

    def _write(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write texts from one prompt, in one request where the server can; further requests write what is missing."""
        first = requests[0]
        if first.grammar is not None and not self._takes_grammars:
            failure = self._look_for_grammars()
            if failure is not None:
                return [failure] * len(requests)
        # At temperature 0 all draws are the same text, and some servers refuse `n` there.
        count = 1 if self._one_text or first.sampling.temperature == 0 else len(requests)
        body = self._body(first, count)
        reply = self._chat(first, body, count * first.sampling.max_new_tokens)
        texts: list[Completion | EngineFailure]
        if isinstance(reply, EngineFailure):
            # Refused by its name: from now on texts are asked for without their ids.
            if "return_token_ids" in body and "return_token_ids" in reply.message:
                self._keep_tokens = False
                return self._write(requests)
            if first.grammar is not None and self._software is not None and _GRAMMAR.search(reply.message):
                raise UserError(refused_grammar(f"takes no grammar ({reply.message})", self._software, self.url))
            # Some servers answer 500 to `n`, so "server" may be a refusal of it as well.
            if reply.kind in ("server", "request") and count > 1:
                return self._write_alone(requests)
            texts = [reply] * count
        else:
            completions = self._completions(first, reply)
            if isinstance(completions, EngineFailure):
                texts = [completions] * count
            else:
                texts = completions[:count]
                if len(texts) < count:
                    self._one_text = True  # the server ignores `n`
        missing = requests[len(texts) :]
        if missing:
            texts = [*texts, *self._write(missing)]
        return texts

    def _body(self, request: Request, count: int) -> dict[str, Any]:
        """Fields of a request for `count` texts, the messages aside."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": _seed(request),
            **extra_fields(request, self._software, self.url),
        }
        # Left out where they say nothing: some servers refuse a field that they do not know, whatever it says.
        if count > 1:
            body["n"] = count
        # Behind a line's end: a server stops at a text wherever it stands.
        stops = [*sampling.stop, *(f"\n{mark}" for mark in self._marks)]
        if stops:
            body["stop"] = stops
        if self._ends:
            body["stop_token_ids"] = self._ends
        if self._keep_tokens:
            body["return_token_ids"] = True
        return body

    def _look_for_grammars(self) -> EngineFailure | None:
        """Find out whether a llama.cpp server takes the grammars of llguidance; why it could not be asked, if so.

        Raises:
            UserError: it was built without.
        """
        reply = self._endpoint.post("/completion", {"prompt": "{", "n_predict": 1, "json_schema": {}}, root=True)
        if isinstance(reply, EngineFailure) and reply.kind not in (REFUSED, "request"):
            return reply
        if isinstance(reply, EngineFailure) or not shows_llguidance(reply):
            raise UserError(refused_grammar("does not show that it takes a grammar", "llama.cpp", self.url))
        self._takes_grammars = True
        return None

    def _write_alone(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write texts from one prompt after the server refused to write several at a time, which it may say anyhow."""
        first = self._write(requests[:1])
        if isinstance(first[0], EngineFailure):
            return first * len(requests)  # a single text fails as well, so `n` was not what it refused
        self._one_text = True
        return [*first, *self._write(requests[1:])]

    def _completions(self, request: Request, reply: dict[str, Any]) -> list[Completion | EngineFailure] | EngineFailure:
        """The texts of an answer, at least one; a failure where it has not the form of an answer."""
        try:
            texts = read_texts(reply)
            usage = read_usage(reply)
            prompt_ids = token_ids(reply.get("prompt_token_ids"))
            if not texts:
                raise IndexError("no choices")
        except MALFORMED as error:
            return EngineFailure(kind="malformed", message=f"{self.url} gave an answer without a text ({error!r})")
        counts = shares(usage.new, [raw.length for raw in texts])
        completions: list[Completion | EngineFailure] = []
        for raw, new_tokens in zip(texts, counts, strict=True):
            if not isinstance(raw.text, str) or raw.finish not in ("stop", "length"):
                kind = "filtered" if raw.finish == "content_filter" else "no text"
                message = f"{self.url} gave no text (finish reason {raw.finish!r})"
                completions.append(EngineFailure(kind=kind, message=message))
                continue
            # A server that takes `stop` cuts the text itself; for a model that refuses the field it is done here.
            cut = text_before_stop(raw.text, request.sampling.stop, self._marks)
            if cut is not None:
                raw = RawText(text=cut, finish="stop", ids=None)
            completions.append(
                Completion(
                    text=self._checked(request, clean_text(raw.text)),
                    prompt_tokens=usage.prompt,
                    new_tokens=new_tokens,
                    finish=raw.finish,
                    revision=self.revision(request.model, request.adapter),
                    tokens=raw.ids,
                    prompt_ids=prompt_ids,
                )
            )
        return completions

    def _checked(self, request: Request, text: str) -> str:
        """A text as the answer of a request.

        Raises:
            UserError: it does not keep to its grammar: the server does not know the field, and says nothing.
        """
        if request.opening and text.startswith(request.opening):
            text = text[len(request.opening) :]  # some servers give what they went on from as well
        if request.grammar is not None and self._software is not None:
            from debate_rl.engines.grammars import follows  # here: few requests have a grammar

            if not follows(request.grammar, text):
                raise UserError(refused_grammar("did not keep to a grammar", self._software, self.url))
        return text

    def _score(self, choice: Choice) -> Scores | EngineFailure:
        """The log-probabilities of one choice's candidates."""
        # At temperature 1 servers that report the sampled distribution and those that report the model's agree.
        body = {"max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": True, "top_logprobs": TOP}
        reply = self._chat(choice, body, 1)
        if isinstance(reply, EngineFailure):
            return self._without_logprobs(reply)
        try:
            top = read_first_token(reply)
            if top is None:
                return self._without_logprobs(EngineFailure(kind=NO_LOGPROBS, message=""))
            prompt_tokens = read_usage(reply).prompt
        except MALFORMED as error:
            return EngineFailure(kind="malformed", message=f"{self.url} gave log-probabilities of no form ({error!r})")
        shown = {token.strip() for token, _ in top}
        # Whole candidates cost further requests, so they are scored only where the first tokens leave one out.
        whole: list[tuple[float, int]] | EngineFailure | None = None
        lengths: tuple[int, ...] | None = None
        if all(candidate.strip() in shown for candidate in choice.candidates):
            lengths = (1,) * len(choice.candidates)
        else:
            whole = self._score_whole(choice)
        if isinstance(whole, EngineFailure):
            return whole
        scores: tuple[float, ...] | None
        if whole is None:
            scores = candidate_scores(choice.candidates, top)
        else:
            scores = tuple(total for total, _ in whole)
            lengths = tuple(length for _, length in whole)
        if scores is None:
            likeliest = ", ".join(repr(token) for token, _ in top[:5])
            return EngineFailure(
                kind="neither",
                message=f"the first token does not tell which of {choice.candidates} is meant (likeliest: {likeliest})"
                "; use a prompt set whose candidates are labels, or a judge of kind 'stated'",
            )
        return Scores(
            logprobs=scores,
            prompt_tokens=prompt_tokens,
            revision=self.revision(choice.model, choice.adapter),
            candidate_tokens=lengths,
        )

    def _score_whole(self, choice: Choice) -> list[tuple[float, int]] | EngineFailure | None:
        """Log-probability and tokens of each whole candidate after the prompt; None where the server can not tell.

        A fault that may pass is a failure: taken for a refusal it would turn exact probabilities into bounds.
        """
        if self._scores_whole is False:
            return None
        try:
            prompt = self._tokenize(choice, {"messages": _as_sent(choice.messages), "add_generation_prompt": True})
            scores = [self._candidate_score(choice, prompt, candidate) for candidate in choice.candidates]
        except LostAnswer as lost:
            if lost.failure.kind not in (REFUSED, "request"):
                return lost.failure
            self._scores_whole = False
            return None
        except MALFORMED as error:
            # A server that has scored candidates before knows the format, so this answer was damaged.
            if self._scores_whole:
                return EngineFailure(kind="malformed", message=f"{self.url} gave scores of no form ({error!r})")
            self._scores_whole = False
            return None
        self._scores_whole = True
        return scores

    def _candidate_score(self, choice: Choice, prompt: tuple[int, ...], candidate: str) -> tuple[float, int]:
        """Log-probability and tokens of a candidate after the prompt: each token is asked for as the only one allowed.

        The prompt is in the server's prefix cache by then. `echo` with `logprobs` would read it anew each time, and
        ends vLLM 0.32 on a CPU once an adapter was loaded.

        Raises:
            LostAnswer: the request failed; or what `MALFORMED` lists, where the answer has another form.
        """
        ids = self._tokenize(choice, {"prompt": neutral(candidate), "add_special_tokens": False})
        total = 0.0
        for at, token in enumerate(ids):
            before = [*prompt, *ids[:at]]
            body = {"prompt": before, "max_tokens": 1, "temperature": 1.0, "allowed_token_ids": [token], **_LOGPROB}
            found = answer_or_raise(self._ask(choice, "/completions", body, len(before), 1))["choices"][0]["logprobs"]
            if found["tokens"] != [f"token_id:{token}"]:
                raise ValueError("another token than the one allowed")
            total += logprob(found["token_logprobs"][0])
        return total, len(ids)

    def _tokenize(self, choice: Choice, body: dict[str, Any]) -> tuple[int, ...]:
        """Token ids by the server.

        Raises:
            LostAnswer: the request failed; or what `MALFORMED` lists, where the answer has another form.
        """
        reply = answer_or_raise(self._ask(choice, "/tokenize", body, 0, 0, root=True))
        tokens = token_ids(reply["tokens"])
        if tokens is None:
            raise IndexError("no tokens")
        return tokens

    def _without_logprobs(self, failure: EngineFailure) -> EngineFailure:
        """The failure, with what to change where the server gives no log-probabilities."""
        if failure.kind != NO_LOGPROBS and "logprob" not in failure.message:
            return failure
        reason = f" ({failure.message})" if failure.message else ""
        return EngineFailure(
            kind=NO_LOGPROBS,
            message=f"{self.url} gives no log-probabilities{reason}; set `judge: {{kind: stated}}`, or serve the judge "
            "with vLLM, SGLang or the transformers engine",
        )

    def _chat(self, question: Request | Choice, body: dict[str, Any], new: int) -> dict[str, Any] | EngineFailure:
        """One chat completion, tried again without each field that the model refuses.

        Raises:
            UserError: the key, path or model is refused; or as for `_ask`.
        """
        name = self._served.name(question.model, question.adapter)
        messages = question.messages
        if isinstance(question, Request) and question.opening:
            messages = (*messages, Message(role="assistant", content=question.opening))
        most_prompt = most_prompt_tokens(messages)
        while True:
            sent = {"messages": _as_sent(messages), **self._fields.accepted(name, body)}
            reply = self._ask(question, "/chat/completions", sent, most_prompt, new)
            if not isinstance(reply, EngineFailure):
                return reply
            if self._fields.learn(name, sent, reply):
                continue
            if reply.kind == REFUSED:
                raise UserError(reply.message)
            return reply

    def _ask(
        self, question: Request | Choice, path: str, body: dict[str, Any], prompt: int, new: int, root: bool = False
    ) -> dict[str, Any] | EngineFailure:
        """One request, after a look whether the server has what is asked for.

        Args:
            question: names the model and adapter.
            path: path below the url.
            body: fields of the request, the model aside.
            prompt: tokens of the prompt, at most; held in the budget until the answer is there.
            new: tokens of the answer, at most; 0 is free (tokenizing).
            root: take the path from the server's root.

        Raises:
            UserError: no server is there, it lacks the model or adapter, or the budget is spent.
        """
        reply: dict[str, Any] | EngineFailure | None = self._served.check(question.model, question.adapter)
        if reply is None:
            name = self._served.name(question.model, question.adapter)
            sent = {"model": name, **body}
            if new:
                reply = self._post_paid(name, path, sent, prompt, new)
            else:
                reply = self._endpoint.post(path, sent, root)
        # Nobody listens: all further requests would wait through their retries for nothing.
        if isinstance(reply, EngineFailure) and reply.kind == UNREACHABLE:
            raise UserError(reply.message)
        return reply

    def _post_paid(
        self, name: str, path: str, body: dict[str, Any], prompt: int, new: int
    ) -> dict[str, Any] | EngineFailure:
        """One request within the budget."""
        with self.budget.hold(name, prompt, new):
            reply = self._endpoint.post(path, body)
            if isinstance(reply, EngineFailure):
                return reply
            count_every_text(reply)
            usage = usage_or_none(reply)
            if usage is None:
                # A server that does not count is taken to have charged the most.
                self.budget.pay(Paid(model=name, prompt=prompt, new=new))
                return reply
            self.budget.pay(Paid(model=name, prompt=usage.prompt, new=usage.new, cached=usage.cached))
            # Many threads ask at a time, and += on a field is no single step.
            with self._lock:
                self.prompt_tokens += usage.prompt
                self.new_tokens += usage.new
        return reply


def _seed(request: Request) -> int:
    """The seed that is sent: servers key their noise on it alone, so it must differ by prompt as well as by draw.

    With equal seeds side A would say what side B says.
    """
    messages = [message.model_dump() for message in request.messages]
    identity = [messages, request.sampling.model_dump(mode="json"), request.seed]
    if request.opening:
        identity.append(request.opening)
    return int(digest(identity), 16) % (1 << 31)


def _all_but_seed(request: Request) -> tuple[Any, ...]:
    """What draws from one prompt have in common."""
    return (request.messages, request.model, request.adapter, request.sampling, request.opening, request.grammar)


def _as_sent(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as they are sent: what speakers wrote holds no control mark of a chat template."""
    return [{"role": message.role, "content": neutral(message.content)} for message in messages]
