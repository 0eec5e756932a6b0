"""The arm without sharing, one call of transformers for each speech and verdict, and a record of what was asked."""

import random
import time
from dataclasses import dataclass, field

import torch

from debate_rl.engines.chat import candidate_ids, prompt_ids


@dataclass
class Calls:
    """What was asked of an engine, with the scores of the choices."""

    requests: list = field(default_factory=list)
    choices: list = field(default_factory=list)
    scores: list = field(default_factory=list)


class Recorder:
    """An engine that notes what it is asked, and answers what it was asked before without running it again."""

    def __init__(self, engine):
        self.engine, self.calls, self._known = engine, Calls(), {}

    def _answer(self, asked, ask):
        missing = [one for one in dict.fromkeys(asked) if one not in self._known]
        self._known.update(zip(missing, ask(missing) if missing else [], strict=True))
        return [self._known[one] for one in asked]

    def generate(self, requests):
        self.calls.requests += requests
        return self._answer(requests, self.engine.generate)

    def choose(self, choices):
        answers = self._answer(choices, self.engine.choose)
        self.calls.choices += choices
        self.calls.scores += answers
        return answers

    def revision(self, model, adapter):
        return self.engine.revision(model, adapter)


def clock(device):
    """CPU seconds of this process; on a GPU seconds by the wall, since its work is not the process's."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Plain:
    """A model of transformers, with adapters where there are any, that is called for one thing at a time."""

    def __init__(self, path, adapters, device, dtype):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).to(device).eval()
        self._names = {adapter: f"a{number}" for number, adapter in enumerate(adapters)}
        for adapter, name in self._names.items():
            if name == "a0":
                self.model = PeftModel.from_pretrained(self.model, adapter, adapter_name=name).to(device).eval()
            else:
                self.model.load_adapter(adapter, adapter_name=name)

    @torch.inference_mode()
    def generate(self, request, sample=True):
        """New tokens of one request."""
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {"do_sample": False}
        ids = self._ids(request)
        with self._as(request):
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
                max_new_tokens=request.sampling.max_new_tokens, **how,
            )  # fmt: skip
        return out[0, ids.size(1) :].tolist()

    @torch.inference_mode()
    def choose(self, choice):
        """Log-probabilities of the candidates, which are one token each here."""
        with self._as(choice):
            logits = self.model(input_ids=self._ids(choice), logits_to_keep=1).logits[0, -1]
        return logits.double().log_softmax(-1)[[candidate_ids(self.tokenizer, c)[0] for c in choice.candidates]].cpu()

    def _ids(self, asked):
        return torch.tensor([prompt_ids(self.tokenizer, asked.messages)], device=self.device)

    def _as(self, asked):
        """The model of a request: its adapter, or the base alone."""
        from contextlib import nullcontext

        if not self._names:
            return nullcontext()
        if asked.adapter is None:
            return self.model.disable_adapter()
        self.model.set_adapter(self._names[asked.adapter])
        return nullcontext()

    def seconds(self, calls, part):
        """Seconds for some calls, of which a part is run (1 is all): (seconds, how many were run, {choice: scores})."""
        spent, runs, scores = 0.0, 0, {}
        for asked, work, least in ((calls.requests, self.generate, 6), (calls.choices, self.choose, 24)):
            drawn = sorted(
                random.Random(0).sample(range(len(asked)), min(len(asked), max(least, int(part * len(asked)))))
            )
            start = clock(self.device)
            found = [work(asked[at]) for at in drawn]
            spent += (clock(self.device) - start) * len(asked) / max(len(drawn), 1)
            runs += len(drawn)
            if asked is calls.choices:
                scores = dict(zip(drawn, found, strict=True))
        return spent, runs, scores

    def agreement(self, engine, requests, count=3):
        """How many of some requests get the same greedy text from an engine: (same, of)."""
        greedy = [
            r.model_copy(update={"sampling": r.sampling.model_copy(update={"temperature": 0.0})}) for r in requests
        ]
        greedy = list(dict.fromkeys(r.model_copy(update={"seed": 0}) for r in greedy))[:count]
        texts = [self.tokenizer.decode(self.generate(r, sample=False), skip_special_tokens=True) for r in greedy]
        ours = engine.generate(greedy)
        return sum(a.text == b.strip() for a, b in zip(ours, texts, strict=True)), len(greedy)


def differences(calls, scores):
    """Largest difference of a verdict's probability and of a log-probability between the arms."""
    verdict, logprob = 0.0, 0.0
    for at, theirs in scores.items():
        ours = torch.tensor(calls.scores[at].logprobs, dtype=torch.float64)
        verdict = max(verdict, (ours.softmax(-1) - theirs.softmax(-1)).abs().max().item())
        logprob = max(logprob, (ours - theirs).abs().max().item())
    return verdict, logprob
