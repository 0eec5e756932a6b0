"""README and the pages of docs/: commands exist, configs load, Python runs, and the reference leaves nothing out."""

import re
import shlex

import pytest
import typer
import yaml
from generate_reference import API, help_text, inner_records, write_reference

import debate_rl as dr
from debate_rl.cli.main import app
from debate_rl.config.kinds import STAGES
from debate_rl.config.tree import Config, parse_config
from debate_rl.data.models.library import cache_folder, is_complete
from debate_rl.records import write
from debate_rl.stages.base import Stage
from tests import ROOT
from tests.command import mistake

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TUTORIALS = [page for page in PAGES if "tutorials" in page.parts]
WRITTEN = [page for page in PAGES if "reference" not in page.parts and "tutorials" not in page.parts]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENTED = re.compile(r"^#(?: |.*[`:] ?)(?: *)(debate-rl [^`\n]*?)(?=`|\.? ?$|\. |; | \(|  )", re.MULTILINE)
"""A command in a comment of a config: a line of its own, between backquotes, or after a colon."""
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(*languages):
    """Fenced blocks of all pages, as pytest parameters."""
    found = []
    for page in WRITTEN:
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if language in languages:
                found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


def commands():
    """Every line that calls debate-rl: in a block of a page, between its backquotes, or in a comment of a config."""
    found = {}
    for page in [*WRITTEN, *TUTORIALS]:
        text = page.read_text(encoding="utf-8")
        lines = []
        for _, block in FENCE.findall(text):
            lines += block.replace("\\\n", " ").splitlines()
        lines += re.findall(r"`(debate-rl [^`\n]+)`", FENCE.sub("", text))
        for line in lines:
            words = re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
            if words.startswith("debate-rl "):
                found[words] = page.relative_to(ROOT)
    for config in sorted((ROOT / "configs").rglob("*.yaml")):
        for words in COMMENTED.findall(config.read_text(encoding="utf-8")):
            found[words] = config.relative_to(ROOT)
    return [pytest.param(words, id=f"{page}: {words}") for words, page in sorted(found.items())]


@pytest.mark.parametrize("words", commands())
def test_a_command_that_is_shown_takes_what_it_is_given(words):
    command = typer.main.get_command(app)
    arguments = shlex.split(words.partition(", ")[0])[1:]
    names = []
    while hasattr(command, "commands") and arguments and arguments[0] in command.commands:
        names.append(arguments.pop(0))
        command = command.commands[names[-1]]
    assert names or arguments in (["--version"], ["COMMAND", "--help"]), f"{words}: no such command"
    if not arguments or hasattr(command, "commands"):
        return  # named in passing
    try:
        command.make_context(" ".join(names), arguments)
    except typer.Exit as end:
        assert end.exit_code == 0


@pytest.mark.parametrize("text", blocks("python"))
def test_python_that_is_shown_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "page", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_that_is_shown_is_a_config_or_a_protocol(text, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    tree = yaml.safe_load(text)
    tree.pop("extends", None)
    if set(tree) <= set(Config.model_fields):
        if "dpo" in tree.get("stages", {}):  # what it builds on may stand elsewhere in a config
            stages = {"sft": {}, **tree["stages"]}
            before = {name: stages.pop(name) for name in list(stages)[: list(stages).index("dpo")]}
            tree["stages"] = {**before, "preferences": before.get("preferences", {}), **stages}
        parse_config(tree)
        return
    path = tmp_path / "protocol.yaml"
    path.write_text(text, encoding="utf-8")
    assert dr.load_protocol(str(path)).turns


def test_the_questions_that_are_shown_load(tmp_path):
    page = (ROOT / "docs/guides/questions.md").read_text(encoding="utf-8")
    correct = []
    for language, block in FENCE.findall(page):
        if language == "json":
            path = tmp_path / "questions.jsonl"
            path.write_text(block, encoding="utf-8")
            questions = dr.load_questions("file", path)
            correct.append([question.correct for question in questions])
            write(tmp_path / f"again-{len(correct)}.jsonl", questions)
    assert correct == [[0, 1, 0, 1], [1, None]]


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in [*WRITTEN, *TUTORIALS]]
)
def test_a_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and "/reference/" not in f"/{target}":
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_config_key_has_its_help_in_the_reference():
    waiting, seen, missing = [Config, *STAGES.values()], set(), []
    while waiting:
        record = waiting.pop()
        if record in seen or record is Stage:
            continue
        seen.add(record)
        for name, field in record.model_fields.items():
            waiting += inner_records(field.annotation)
            if name != "kind" and not help_text(record, name):
                missing.append(f"{record.__name__}.{name}")
    assert missing == []


def test_the_reference_is_written_in_a_fresh_clone(tmp_path):
    write_reference(tmp_path / "reference")
    api = (tmp_path / "reference" / "api.md").read_text(encoding="utf-8")
    assert "load_environment" in api and "train_dpo" in api


def test_every_public_name_is_in_the_reference_and_documented():
    listed = {name for names in API.values() for name in names}
    plugin = {"DebateEnv", "DebateHarness", "DebateTaskset"}  # where verifiers is installed
    assert set(dr.__all__) - plugin <= listed
    assert [name for name in dr.__all__ if not getattr(dr, name).__doc__] == []


LIBRARY = ROOT / "docs/tutorials/library.md"


def cells(page):
    """The code of a tutorial, as one program."""
    return "\n".join(re.findall(r"^```\{code-cell\}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S))


def test_the_tutorial_of_the_library_says_so_where_the_model_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEBATE_RL_MODELS", str(tmp_path))
    exec(compile(cells(LIBRARY), "page", "exec"), {"__name__": "page"})
    assert "debate-rl models get smollm2-135m" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tutorial_of_the_library_runs_where_the_model_is(tmp_path, monkeypatch, capsys):
    if not is_complete(cache_folder() / "smollm2-135m"):
        pytest.skip(f"smollm2-135m is not in {cache_folder()}; run debate-rl models get smollm2-135m")
    exec(compile(cells(LIBRARY), "page", "exec"), {"__name__": "page"})
    said = capsys.readouterr().out
    assert said.count("probability of the correct answer: ") == 2
    # Held to the text: no quote is anything but exact.
    assert set(re.findall(r"'(\w+)'", "".join(re.findall(r"quotes: (.*)", said)))) == {"exact"}


def test_the_numbers_of_the_library_s_tutorial_are_those_of_its_results():
    results = (ROOT / "docs/results/library.md").read_text(encoding="utf-8")
    text = LIBRARY.read_text(encoding="utf-8")
    measured = re.findall(r"^\| (?!measured|-)([^|]+) \| ([^|]+) \|$", text, re.M)
    assert len(measured) == 6
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", results, re.M))
    for what, value in measured:
        # The page leaves out the Brier scores; what it gives stands at the beginning of the results' cell.
        assert rows[what].replace("*", "").startswith(value), what
    assert "29 CPU minutes" in " ".join(text.split()) and "29 CPU minutes" in " ".join(results.split())


def test_a_mistake_ends_in_the_line_that_is_shown(call):
    said = mistake(call("run", str(ROOT / "configs/quickstart.yaml"), "stages.dop={}"))
    assert "did you mean 'stages.dpo'?" in said
