import os
import re

import pytest
import yaml

from debate_rl.config.tree import Config, dump_config, load_config, parse_config, settled
from debate_rl.errors import UserError
from debate_rl.game.protocol import shipped_protocols
from tests import ROOT


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_survives_its_own_dump(path):
    config = load_config(path)
    assert config.stages
    assert parse_config(yaml.safe_load(dump_config(config))) == config


def test_overrides_reach_any_key(tmp_path):
    path = write(tmp_path, "name: x\nstages: {sft: {}, preferences: {}, dpo: {objective: {gamma: 7}}}\n")
    found = load_config(
        path, ["seed=3", "stages.dpo.objective.gamma=10", "stages.dpo.train.beta=0.1", "engine.device=cpu"]
    )
    assert (found.seed, found.stages["dpo"].objective.gamma, found.stages["dpo"].train) == (3, 10, {"beta": 0.1})


@pytest.mark.parametrize(
    "name",
    [".", "..", "", "store", "Store", "wandb", "base", "a/b", "./../../elsewhere", "a\\b", "-a", ".a", "a.", "a\nb",
     "a\x00b", "x" * 65, "seed0", "nul.txt", "\u00e9", "a b", "com1", "LPT9.x", "metrics.json",
     "config.yaml", "code.json", "paid.jsonl", "wandb-id"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["stage", "run", "method", "table"])
def test_names_of_folders_can_not_lead_elsewhere(tmp_path, name, what):
    tree = {
        "stage": {"stages": {name: {"kind": "report"}}},
        "run": {"name": name},
        "method": {"stages": {"weak_to_strong": {"debater": "base", "methods": {name: {}}}}},
        "table": {"stages": {"weak_to_strong": {"debater": "base", "table": name}}},
    }[what]
    if what == "run" and name == "seed0":
        pytest.skip("a study names its runs so")
    if what == "table" and name == "":
        pytest.skip("empty is no table")
    with pytest.raises(UserError, match="can not name") as found:
        parse_config(tree)
    assert "\n" not in str(found.value)


def test_two_stages_may_not_be_one_folder_on_other_systems():
    with pytest.raises(UserError, match="one folder on many systems"):
        parse_config({"stages": {"a": {"kind": "report"}, "A": {"kind": "report"}}})


def test_a_config_extends_only_configs_of_its_own_tree(tmp_path):
    (tmp_path / "secret.yaml").write_text("hidden-line:x:0:0\n: [")
    folder = tmp_path / "mine"
    folder.mkdir()
    for other in ("/etc/passwd", "/dev/zero", "../secret.yaml", "../../secret.yaml", "notes.txt"):
        (folder / "c.yaml").write_text(f"extends: {other}\n")
        with pytest.raises(UserError, match="extends") as found:
            load_config(folder / "c.yaml")
        assert "hidden-line" not in str(found.value)
    tree = tmp_path / "configs" / "tables"
    tree.mkdir(parents=True)
    (tmp_path / "configs" / "below.yaml").write_text("seed: 4\n")
    (tree / "c.yaml").write_text("extends: ../below.yaml\n")
    assert load_config(tree / "c.yaml").seed == 4


def test_errors_of_yaml_show_no_text_of_the_file(tmp_path):
    path = write(tmp_path, "key: [hidden-value, {\n")
    with pytest.raises(UserError, match=r"c.yaml:\d+: not valid YAML") as found:
        load_config(path)
    assert "hidden-value" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nseed: 1\nname: b\n", "c.yaml:3: not valid YAML (a key stands twice in one group)"),
        ("stages: {sft: {}, reading: {}, sft: {limit: 3}}\n", "a key stands twice"),
        ("questions: {knobs: &k {a: *k}}\n", "an alias stands within what it names"),
        ("stages: {x: {kind: [sft]}}\n", "unknown key 'stages.['sft']'"),
        ("stages: {x: {kind: {sft: 1}}}\n", "unknown key 'stages."),
        (f"seed: 0x{'f' * 6000}\n", "seed: Input should be less than 4294967296"),
        ("seeds: [99999999999999999999]\n", "seeds.0: Input should be less than"),
    ],
)
def test_what_would_be_lost_or_fail_later_is_said_in_a_line(tmp_path, text, said):
    with pytest.raises(UserError) as found:
        load_config(write(tmp_path, text))
    assert said in str(found.value) and "\n" not in str(found.value)


def test_aliases_stand_for_no_huge_value(tmp_path):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    for tree in ("\n".join(lines), "\n".join(lines) + "\nquestions: {knobs: {moves: *a11}}"):
        with pytest.raises(UserError, match="aliases repeat too much"):
            load_config(write(tmp_path, tree))
    config = load_config(write(tmp_path, "stages: {a: &a {kind: sft, limit: 3}, b: {<<: *a, limit: 4}}\n"))
    assert (config.stages["a"].limit, config.stages["b"].limit) == (3, 4)


def test_texts_of_a_config_are_clean(tmp_path):
    path = write(tmp_path, 'models: {debater: "a\\ud800b"}\n')
    assert load_config(path, ['models.judge="\\udfff\\0"']).models.by_role()["debater"] == "a\ufffdb"
    assert load_config(path, ['models.judge="\\udfff\\0"']).models.judge == "\ufffd\ufffd"


def test_a_chain_of_extends_is_bounded(tmp_path):
    for number in range(1200):
        (tmp_path / f"c{number}.yaml").write_text(f"extends: c{number + 1}.yaml\n")
    with pytest.raises(UserError, match="one on another"):
        load_config(tmp_path / "c0.yaml")


@pytest.mark.parametrize("kind", ["folder", "pipe", "binary", "large", "unreadable"])
def test_what_is_no_config_file_is_said_in_a_line(tmp_path, kind):
    path = tmp_path / "c.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00\x01" * 9)
    elif kind == "large":
        path.write_text("# " + "x" * (1 << 21))
    else:
        path.write_text("name: a")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    with pytest.raises(UserError) as found:
        load_config(path)
    assert "\n" not in str(found.value)


def test_stages_of_one_kind_can_have_several_names(tmp_path):
    found = load_config(write(tmp_path, "stages: {sft: {}, preferences: {}, dpo: {}, dpo2: {kind: dpo, start: dpo}}"))
    assert found.stages["dpo2"].start == "dpo"


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("stages: {dop: {}}", [], "unknown key 'stages.dop'; did you mean 'stages.dpo'?"),
        ("stages: {dpo: {objectiv: {}}}", [], "did you mean 'stages.dpo.objective'"),
        (
            "stages: {dpo: {objective: {gama: 1}}}",
            [],
            "unknown key 'stages.dpo.objective.gama'; did you mean 'stages.dpo.objective.gamma'",
        ),
        ("modls: {}", [], "did you mean 'models'"),
        ("engine: {treads: 1}", [], "unknown key 'engine.treads'; did you mean 'engine.threads'"),
        ("stages: {dpo: {}, sft: {}, preferences: {}}", [], "stage 'dpo' builds on 'preferences', which comes later"),
        (
            "stages: {sft: {}, tournament: {players: [base, stf]}}",
            [],
            "builds on 'stf', which is not there",
        ),
        ("questions: {train: 0}", [], "questions.train"),
        ("stages: {tournament: {players: [a]}}", [], "at least two players"),
        ("seed: many", [], "seed"),
        ("a: [", [], "not valid YAML"),
        ("", [], "is empty"),
        ("word", [], "expected keys and values"),
        ("- a\n- b", [], "expected keys and values"),
        ("name: x", ["seed=[1"], "not valid YAML"),
        ("name: x", ["stages=5"], "stages: expected names"),
        ("stages: {sft: 5}", [], "stages.sft: expected settings"),
        ("name: ../x", [], "name:"),
        ("seed: -1", [], "seed:"),
        ("seeds: [0, 0]", [], "seed 0 stands there twice; give each seed once"),
        ("seeds: [0, -1]", [], "seeds.1:"),
        ("questions: {seed: -1}", [], "questions.seed:"),
        ("stages: {reading: {models: []}}", [], "stages.reading.models"),
        ("- 1", [], "expected keys and values"),
        ("name: x", ["seed"], "key.path=value"),
        ("name: x", ["name.y=1"], "is a value"),
        ("name: x", ["sed=1"], "did you mean 'seed'"),
    ],
)
def test_mistakes_are_one_line_that_says_the_fix(tmp_path, text, overrides, said):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text), overrides)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="config not found: none.yaml"):
        load_config("none.yaml")


def test_protocol_changes_reach_every_protocol():
    config = Config.model_validate({"protocol": {"turns": 3, "max_new_tokens": 9, "prompts": "lab"}})
    assert (config.protocol.load().turns, config.protocol.load("blind").turns) == (3, 0)
    assert config.protocol.load("double").max_new_tokens == 9 and config.protocol.load("blind").prompts == "lab"


def test_whether_a_judge_can_ask_is_checked_with_the_turns_of_the_config(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("judge_questions: true\n")  # of one turn
    of = Config.model_validate({"protocol": {"name": str(path), "turns": 3}}).protocol
    assert of.load().turns == 3 and of.load("debate").turns == 3
    with pytest.raises(UserError, match="two rounds or more; set turns to 2"):
        Config.model_validate({"protocol": {"name": str(path)}}).protocol.load()
    one = Config.model_validate({"protocol": {"turns": 1}}).protocol
    with pytest.raises(UserError, match="two rounds or more"):
        one.load("debate_questions")


def test_turns_leave_protocols_their_shape():
    of = Config.model_validate({"protocol": {"turns": 2}}).protocol
    turns = {name: of.load(name).turns for name in shipped_protocols()}
    assert turns == {
        "debate": 2, "sequential": 4, "claim": 3, "single": 2, "double": 2, "ensembled": 2, "market_making": 4,
        "open_debate": 4, "open_single": 2, "blind": 0, "open_book": 0,
        "claim_single": 2, "claim_market": 1, "explanations": 2, "debate_questions": 2,
    }  # fmt: skip
    other = Config.model_validate({"protocol": {"name": "sequential", "turns": 4}}).protocol
    assert (other.load().turns, other.load("debate").turns, other.load("open_debate").turns) == (4, 2, 4)
    market = Config.model_validate({"protocol": {"name": "market_making", "turns": 6}}).protocol
    assert (market.load().turns, market.load("debate").turns) == (6, 3)


def test_a_config_may_extend_another(tmp_path):
    (tmp_path / "below").mkdir()
    below = "{name: one, seed: 3, questions: {train: 9, test: 8}, stages: {sft: {limit: 5}, report: {}}}"
    write(tmp_path / "below", below)
    above = tmp_path / "above.yaml"
    stages = "stages: {sft: {rows: 4}, judge: {players: [sft]}}"
    above.write_text(f"{{extends: below/c.yaml, name: two, questions: {{test: 2}}, {stages}}}")
    found = load_config(above, ["questions.train=7"])
    assert (found.name, found.seed, found.questions.train, found.questions.test) == ("two", 3, 7, 2)
    assert list(found.stages) == ["sft", "report", "judge"]
    assert (found.stages["sft"].limit, found.stages["sft"].rows) == (5, 4)


def test_stages_of_what_is_extended_can_be_left_out(tmp_path):
    (tmp_path / "below.yaml").write_text("{name: one, stages: {sft: {limit: 5}, judge: {}, report: {}}}")
    above = tmp_path / "above.yaml"
    above.write_text("{extends: below.yaml, without: [report, judge], stages: {dpo: {preferences: sft}, report: {}}}")
    assert list(load_config(above).stages) == ["sft", "dpo", "report"]
    for wrong, message in (("[jugde]", "did you mean 'judge'"), ("judge", "a list of stages")):
        above.write_text(f"{{extends: below.yaml, without: {wrong}}}")
        with pytest.raises(UserError, match=message):
            load_config(above)


@pytest.mark.parametrize("text, message", [("extends: above.yaml", "extends itself"), ("extends: [a]", "the path of a"),
                                           ("extends: no.yaml", "no.yaml")])  # fmt: skip
def test_extending_what_can_not_be_extended_is_said_in_one_line(tmp_path, text, message):
    path = tmp_path / "above.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("key_env", "sk-hunter2", "key_env is the NAME of an environment variable"),
        ("key_env", "hunter2 ", "NAME of an environment variable"),
        ("key_env", "[hunter2]", "engine.key_env"),
        ("url", "http://me:hunter2@host/v1", "engine.url: it holds a user, password or query"),
        ("url", "http://me:hunter2@host:abc/v1", "engine.url: the host or port is not valid"),
        ("url", "hunter2", "engine.url: this is no url"),
    ],
)
def test_a_secret_in_the_wrong_field_is_refused_and_not_told(tmp_path, key, value, said):
    text = {"kind": "server", "url": "http://localhost:8000/v1", key: yaml.safe_load(value) if "[" in value else value}
    with pytest.raises(UserError, match="engine") as raised:
        load_config(write(tmp_path, yaml.safe_dump({"engine": text})))
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value) + str(raised.value.__cause__)


def test_a_server_with_a_key_is_accepted(tmp_path):
    found = load_config(write(tmp_path, "engine: {kind: server, url: 'http://[::1]:8000/v1', key_env: OPENAI_KEY}"))
    assert (found.engine.url, found.engine.key_env) == ("http://[::1]:8000/v1", "OPENAI_KEY")


def test_what_a_run_may_change_while_it_is_at_work(tmp_path):
    one = load_config(write(tmp_path, "engine: {kind: server, url: http://a/v1}"))
    assert settled(one)["engine"]["url"] == "http://a/v1"
    free = "{kind: server, url: http://%s/v1, revision: llama, budget: {tokens: %d}, batch_tokens: %d}"
    first, second = (load_config(write(tmp_path, f"engine: {free % values}")) for values in (("a", 5, 9), ("b", 6, 8)))
    assert settled(first) == settled(second) != settled(one)
    assert settled(first.model_copy(update={"seed": 5})) != settled(first)
    with pytest.raises(UserError, match="engine.budget.tokens"):
        load_config(write(tmp_path, "engine: {budget: {tokens: 0}}"))


@pytest.mark.parametrize("urls", ["[http://a/v1, http://b/v1]", "[http://a/v1]", "[]"])
def test_a_list_of_urls_is_refused_because_replicas_belong_to_the_server(tmp_path, urls):
    with pytest.raises(
        UserError, match="engine.url: give one url, not a list: replicas belong to the server"
    ) as raised:
        load_config(write(tmp_path, f"engine: {{kind: server, url: {urls}}}"))
    assert "\n" not in str(raised.value) and "http" not in str(raised.value)


@pytest.mark.parametrize("other", ["a" * 5000 + ".yaml", "a\0b.yaml"])
def test_a_path_that_no_file_can_have_is_one_line_in_extends(tmp_path, other):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"extends": other}))
    with pytest.raises(UserError, match="extends|not found") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"judge": {"least_mass": 0.1}}, "'judge.least_mass' is called 'min_answer_mass' now"),
        ({"stages": {"tournament": {"readings": 4}}}, "'stages.tournament.readings' is called 'evidence_probes' now"),
        ({"stages": {"oversight": {"unsure": 0.1}}}, "'stages.oversight.unsure' is called 'unsure_margin' now"),
        ({"stages": {"grpo": {"served": "all"}}}, "'stages.grpo.served' is called 'server_roles' now"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(tree, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_config(tree)
