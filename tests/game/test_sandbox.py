"""A template of a user's reads its values and nothing else, and it ends."""

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.tasks.task import Maker, Task
from debate_rl.game.sandbox import Sandbox, fill, template_fault

GROWS = "{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {more} %}}{{% endfor %}}"
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in text %}{% for b in text %}{% for c in text %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro count_step() %}{% endmacro %}{% for a in range(99999) %}{% for b in text %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for a in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
    "{% for i in range(99999) %}{{ text }}{% endfor %}",
    GROWS.format(start="'ab'", more="ns.x ~ ns.x"),
    GROWS.format(start="'ab'", more="ns.x + ns.x"),
    GROWS.format(start="'ab'", more="'{0}{0}'.format(ns.x)"),
    GROWS.format(start="'ab'", more="'%s%s' % (ns.x, ns.x)"),
    GROWS.format(start="'ab'", more="[ns.x, ns.x]|join"),
    GROWS.format(start="'aa'", more="ns.x.replace('a', ns.x)"),
    GROWS.format(start="[1]", more="ns.x * 2"),
    GROWS.format(start="7", more="ns.x * ns.x"),
    "{% set ns = namespace(x='ab') %}"
    "{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
]
NESTED = "{% set ns = namespace(x=[1]) %}" + "{% set ns.x = [ns.x, ns.x, ns.x, ns.x] %}" * 40
HUGE = [
    "{{ 'x' * 10 ** 10 }}",
    "{{ 10 ** 9 ** 9 }}",
    "{{ 9 ** 999999999 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 'x'|center(10 ** 10) }}",
    "{{ 'x'.ljust(10 ** 10) }}",
    "{{ text|indent(10 ** 10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ lipsum(n=10 ** 9) }}",
    NESTED + "{{ ns.x }}",
    NESTED + "{{ ns.x|pprint }}",
    NESTED + "{{ ns.x == [ns.x] }}",
    "{{ (((([1] * 100,) * 100,) * 100,) * 100) ~ '' }}",
    "{% for i in range(99999) %}{{ range(9999)|list|length }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "long " * 2000 + "{% endfor %}{% endset %}",
    "{% filter upper %}{% for i in range(99999) %}{{ text }}{% endfor %}{% endfilter %}",
    "{{ ([['x'] * 99] * 99)|tojson(indent=99999) }}",
    "{{ ('{0:99999}' * 9999).format(1) }}",
    "{{ '{:{w}{w}}'.format(1, w=99999) }}",
    "{{ ('{0}' * 9999).format(text * 99) }}",
    "{{ ('%(a)s' * 99999) % {'a': text * 99} }}",
    "{{ ('\\t' * 99999).expandtabs(99999) }}",
    "{{ ('x' * 999999).translate({120: text * 9}) }}",
    "{{ ([text] * 999)|join(text) }}",
]


@pytest.mark.parametrize("template", [*ENDLESS, *HUGE])
def test_a_template_that_would_not_end_or_fill_the_memory_is_one_line(template):
    try:
        fill(Sandbox(undefined=jinja2.StrictUndefined).from_string(template), {"text": "The story. " * 100})
    except Exception as error:
        assert "\n" not in template_fault(error)
    else:
        assert "9 ** 9" in template  # Jinja2 takes powers from the left: some hundred digits


def test_templates_of_tasks_have_the_same_limits():
    for text in (ENDLESS[0], "{{ 'x' * 10 ** 10 }}", "{{ text.__class__.__mro__ }}"):
        with pytest.raises(ValueError, match="reaches too far"):
            Maker(Task(name="t", text=text, label="label")).draw({"text": "x", "label": 1}, None)


PARTS = st.sampled_from(
    [
        "{{ text|trim }} ({{ 1 + 2 }})",
        "{% for word in text.split() %}{{ loop.index }}: {{ word ~ '!' }}\n{% else %}none{% endfor %}",
        "{% macro said(x) %}<{{ x }}>{% endmacro %}{{ said(text) }}",
        "{% set block %}{{ text }}?{% endset %}{{ block|upper }}",
        "{% set block | lower %}{{ text }}{% endset %}{{ block }}",
        "{{ '%s of 1234567: %d%%' % (text, 3) }}{{ '{} 7654321'.format(text) }}",
        "{{ text|replace('a', 'b')|indent(2) }}{{ [text, text]|join(', ') }}{{ 2 ** 10 * 3 }}",
    ]
)


OURS, THEIRS = Sandbox(), jinja2.Environment()


@given(st.lists(PARTS, max_size=4), st.text(max_size=30))
def test_an_ordinary_template_writes_what_jinja_writes(parts, text):
    source = "".join(parts)
    expected = THEIRS.from_string(source).render(text=text)
    assert fill(OURS.from_string(source), {"text": text}) == expected
