"""What a speaker is told stands in the prompt, whatever the chat template does with roles."""

from types import SimpleNamespace

import jinja2
import pytest

from debate_rl.engines.chat import candidate_ids, render
from debate_rl.engines.request import Message
from debate_rl.errors import UserError
from tests.tiny import tiny_tokenizer

GAME = [Message(role="system", content="the rules"), Message(role="user", content="argue")]
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
SKIPS = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
REFUSES = "{% if messages[0].role == 'system' %}{{ nosuch.role.x }}{% endif %}" + SKIPS


class Tokenizer(SimpleNamespace):
    """Has a template and no special tokens."""

    added_tokens_decoder, all_special_tokens, name_or_path = {}, (), "tiny"
    __hash__ = object.__hash__

    def apply_chat_template(self, turns, tokenize, add_generation_prompt):
        return jinja2.Template(self.chat_template).render(messages=turns)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (PLAIN, "<system>the rules<user>argue<assistant>"),
        (PLAIN.replace("m.content", "m.content | upper"), "<system>THE RULES<user>ARGUE<assistant>"),
        (SKIPS, "<user>the rules\n\nargue<assistant>"),
        (REFUSES, "<user>the rules\n\nargue<assistant>"),
    ],
)
def test_the_rules_are_in_the_prompt_whatever_the_template_does_with_them(template, prompt):
    tokenizer = Tokenizer(chat_template=template)
    assert render(tokenizer, GAME) == prompt
    tokenizer.chat_template = PLAIN  # another template is asked again
    assert render(tokenizer, GAME) == "<system>the rules<user>argue<assistant>"


def test_rules_alone_are_shown_as_well():
    assert render(Tokenizer(chat_template=SKIPS), GAME[:1]) == "<user>the rules<assistant>"


@pytest.mark.parametrize("template", ["{{ nosuch.x.y }}", "{% if %}"])
def test_a_faulty_template_is_one_line(template):
    with pytest.raises(UserError, match="tiny: its chat template fails .*save another with the model") as caught:
        render(Tokenizer(chat_template=template), GAME)
    assert "\n" not in str(caught.value)


def test_a_candidate_with_a_control_token_in_it_is_scored_as_text():
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer("w1 <|end|>")["input_ids"][-1] == end
    assert end not in candidate_ids(tokenizer, "w1 <|end|>") and candidate_ids(tokenizer, "w1 w2") == (7, 8)
