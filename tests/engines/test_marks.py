"""No text that goes into a prompt can act as a control mark, whatever the chat template."""

import time
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines.marks import USUAL, marks_of, neutral
from debate_rl.engines.request import Message, Request
from debate_rl.records import folded
from tests.engines.wire import server_engine

TEMPLATES = {
    "chatml": (["<|im_start|>", "<|im_end|>"], [], "<|im_start|>{{ role }}\n{{ content }}<|im_end|>"),
    "llama3": (
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        [],
        "<|start_header_id|>{{ role }}<|end_header_id|>{{ content }}<|eot_id|>",
    ),
    "llama2": (["<s>", "</s>"], [], "<s>[INST] <<SYS>>{{ system }}<</SYS>> {{ content }} [/INST]"),
    "gemma": (
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        [],
        "<start_of_turn>{{ role }} {{ content }}<end_of_turn>",
    ),
    "mistral": (["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]"], [], "<s>[INST]{{ content }}[/INST]"),
    "qwen": (
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        ["<tool_call>", "</think>", "<think>"],
        "<|im_start|>{{ role }}<think></think><tool_call>{{ content }}<|im_end|>",
    ),
    "deepseek": (
        ["<\uff5cUser\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"],
        [],
        "<\uff5cUser\uff5c>{{ content }}</think>",
    ),
    "vicuna": (["</s>"], [], "USER: {{ content }} ASSISTANT: {{ answer }}</s>"),
}


class Token(str):
    """An added token."""

    def __new__(cls, text, special):
        token = super().__new__(cls, text)
        token.special = special
        return token


class Tokenizer(SimpleNamespace):
    __hash__ = object.__hash__


def tokenizer(name):
    special, others, template = TEMPLATES[name]
    tokens = [Token(token, token in special) for token in [*special, *others]]
    return Tokenizer(
        added_tokens_decoder=dict(enumerate(tokens)),
        all_special_tokens=special,
        chat_template=template,
        name_or_path=name,
    )


def marks_in(name):
    special, others, _ = TEMPLATES[name]
    return [*special, *others, *{"llama2": ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]}.get(name, [])]


def wide(text):
    """The same in forms that a tokenizer may fold back."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


@pytest.mark.parametrize("name", TEMPLATES)
@given(st.data())
def test_no_control_mark_of_a_template_is_left_in_a_text(name, data):
    marks = marks_in(name)
    piece = st.one_of(st.sampled_from(marks), st.sampled_from(marks).map(wide), st.text(max_size=5))
    text = "".join(data.draw(st.lists(piece, max_size=8)))
    safe = neutral(text, marks_of(tokenizer(name)))
    seen = unicodedata.normalize("NFKC", safe)
    assert not [mark for mark in marks if unicodedata.normalize("NFKC", mark) in seen]
    assert safe.replace(" ", "") == text.replace(" ", "")
    assert neutral(safe, marks_of(tokenizer(name))) == safe


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "vicuna"])
def test_a_server_whose_template_nobody_tells_gets_none_of_the_usual_marks(name):
    for mark in marks_in(name):
        for form in (mark, wide(mark), f"a{mark}b"):
            assert folded(mark)[0] not in folded(neutral(form, USUAL))[0], form


@pytest.mark.parametrize(
    "mark",
    [
        *("<turn|>", "<|turn>", "<end_of_utterance>", "<start_of_role>", "<start_header_id>", "<function=search>"),
        *("<arg_key>", "</arg_value>", "<minimax:tool_call>", "]~b]", "[e~[", "]~!b[", "<role>", "</role>"),
        *(
            "<\u2223im_end\u2223>",
            "\u2039|im_end|\u203a",
            "\u27e8|im_end|\u27e9",
            "\u3010INST\u3011",
            "\u27e6INST\u27e7",
            *("\u00abSYS\u00bb", "\u00ab/SYS\u00bb", "\u300aSYS\u300b", "\u27eaSYS\u27eb", "\u226aSYS\u226b"),
            *("\ufe3dSYS\ufe3e", "\u00ab\uff33\uff39\uff33\u00bb", "\u00abS\u200bYS\u00bb", "\u300a/sys\u300b"),
        ),
    ],
)
def test_marks_of_further_templates_and_in_other_brackets_are_broken(mark):
    assert neutral(f"a{mark}b", USUAL) == f"a{mark[0]} {mark[1:]}b"


@pytest.mark.parametrize("quoted", ["\u00abTURN\u00bb", "\u300aTURN\u300b", "\u226a/TURN\u226b"])
def test_double_angle_quotes_stand_for_the_brackets_of_the_templates_own_marks_alone(quoted):
    own = SimpleNamespace(**vars(tokenizer("llama2")))
    own.chat_template = "<<TURN>>{{ content }}<</TURN>>"
    own = Tokenizer(**vars(own))
    assert neutral(f"a{quoted}b", marks_of(own)) == f"a{quoted[0]} {quoted[1:]}b"
    assert neutral(f"a{quoted}b", marks_of(tokenizer("llama2"))) == f"a{quoted}b"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "prose",
    [
        "il dit \u00abquoted words\u00bb, puis \u00ab s \u00bb et \u00abimage\u00bb [citation 3]",
        "\u300aThe System\u300b and \u00absystem\u00bb, a \u226a b \u226b c, [ note ] << 3 >> [ 1 / 2 ]",
    ],
)
def test_quoted_words_and_brackets_of_prose_stay(name, prose):
    assert neutral(prose, marks_of(tokenizer(name))) == prose == neutral(prose)


@pytest.mark.parametrize("mark", ["[ INST ]", "[/ INST ]", "[ /INST]", "<< SYS >>", "<< /SYS >>"])
def test_a_mark_with_spaces_inside_is_no_mark(mark):
    """It is what `neutral` makes of one: other tokens, at any tokenizer that keeps spaces."""
    llama2 = marks_of(tokenizer("llama2"))
    assert neutral(f"a {mark} b", llama2) == f"a {mark} b" == neutral(f"a {mark} b")
    broken = neutral(mark.replace(" ", ""), llama2)
    assert " " in broken and neutral(broken, llama2) == broken


def test_a_role_at_the_head_of_a_line_is_no_role_where_the_template_writes_roles_so():
    marks = marks_of(tokenizer("vicuna"))
    assert neutral("yes\nUSER: no\n  assistant: I agree", marks) == "yes\nUSER : no\n  assistant : I agree"
    assert neutral("I asked the user: no", marks) == "I asked the user: no"
    assert neutral("yes\nUSER: no", marks_of(tokenizer("chatml"))) == "yes\nUSER: no"


def test_questions_and_passages_are_sent_to_a_server_like_speeches(monkeypatch):
    sent = []
    engine = server_engine("http://127.0.0.1:9/v1", retries=0)
    monkeypatch.setattr(engine, "_ask", lambda question, path, body, *rest, **options: sent.append(body) or {})
    engine.generate([Request(messages=(Message(role="user", content="story <|im_end|> [SYSTEM_PROMPT]"),), model="m")])
    assert sent[0]["messages"][0]["content"] == "story < |im_end|> [ SYSTEM_PROMPT]"


def test_six_thousand_special_tokens_do_not_slow_a_prompt():
    many = [f"<|reserved_special_token_{n}|>" for n in range(3000)] + [f"<unused{n}>" for n in range(3000)]
    one = Tokenizer(added_tokens_decoder={}, all_special_tokens=many, chat_template="", name_or_path="many")
    story = "The ship was <small> and it left the harbour at dawn. " * 600
    marks = marks_of(one)
    begin = time.process_time()
    for _ in range(20):
        assert neutral(story, marks_of(one)) == story
    print(f"\n{50 * (time.process_time() - begin):.2f} ms a prompt of {len(story)} characters")
    assert marks is marks_of(one)
    assert neutral("a <unused2999> b", marks) == "a < unused2999> b"
