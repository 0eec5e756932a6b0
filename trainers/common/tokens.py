"""Encode rows as token ids: the prompt as an engine will encode it, then the completion and its end-of-turn token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from debate_rl.engines.chat import frame, render
from debate_rl.engines.marks import marks_of, neutral
from debate_rl.engines.request import Message as ChatMessage
from debate_rl.game.prompts import Message


class Encoder:
    """Encodes rows for one tokenizer.

    Training sees the prompt that inference sees (`engines.chat`), and the completion ends with the token with which the
    template ends the assistant's turn. Whatever the template adds after that token (ChatML's newline) is not learnt.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._marks = marks_of(tokenizer)

    def encode(self, prompt: Sequence[Message], *completions: str) -> tuple[list[int], list[list[int]]]:
        """Token ids of a prompt, and of each completion with its end-of-turn token.

        Special tokens that stand in a completion as text are broken up, and spaces at its ends are dropped, as engines
        do with speeches that they read.
        """
        text = self._text(prompt)
        prompt_ids = self._ids(text)
        before, after = frame(self.tokenizer)
        answers = [before + neutral(completion.strip(), self._marks) + after for completion in completions]
        return prompt_ids, [self._answer_ids(text, prompt_ids, answer) for answer in answers]

    def _answer_ids(self, prompt: str, prompt_ids: list[int], answer: str) -> list[int]:
        """Token ids of an answer as they stand after its prompt."""
        # Encoded together, as some tokenizers add a space to a text that stands alone.
        whole = self._ids(prompt + answer)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        # Tokens merge across the border: keep the prompt as it is at inference and encode the answer alone.
        return self._ids(answer)

    def prompt(self, prompt: Sequence[Message]) -> list[int]:
        """Token ids of a prompt alone."""
        return self._ids(self._text(prompt))

    def _text(self, prompt: Sequence[Message]) -> str:
        """The prompt as the template renders it, up to where the assistant begins."""
        return render(self.tokenizer, [ChatMessage.model_validate(message) for message in prompt])

    def _ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens around it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
