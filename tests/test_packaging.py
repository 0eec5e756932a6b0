"""The wheel, the sdist and the editable install hold the same package, and own one name."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from tests import ROOT

WANTED = (
    "debate_rl/py.typed",
    "debate_rl/cli/main.py",
    "debate_rl/judges/judge.py",
    "debate_rl/trainers/common/job.py",
    "debate_rl/data/questions.py",
    "debate_rl/game/protocols.yaml",
    "debate_rl/game/templates/lab/judge.j2",
    "debate_rl/report/page.j2",
    "debate_rl/data/models/lab-base/model.safetensors",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy of what git would commit."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if not any(listed):
        pytest.skip("not a git checkout")
    for name in filter(None, listed):
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-P", str(ROOT / name), str(source / name)], check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_holds_every_room_under_one_name(built):
    names = zipfile.ZipFile(built[0]).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"debate_rl"}
    assert set(WANTED) <= set(names)


def test_the_sdist_builds_the_same_wheel(built):
    with tarfile.open(built[1]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "configs/quickstart.yaml"} <= names


def test_the_hub_of_packages_takes_wheel_and_sdist(built):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


CONSUMER = """
from pathlib import Path

import debate_rl as dr


def study(folder: Path) -> float:
    rules: dr.Protocol = dr.load_protocol("debate", prompts="lab", max_new_tokens=48)
    questions: list[dr.Question] = dr.load_questions("lab", split="train", limit=4)
    base = dr.Debater("base", model="lab-base", best_of=4)
    judge = dr.Judge(model="lab-base")
    debates = dr.play(base, base, questions, judge, rules, folder=folder / "games")
    trained: dr.Debater = dr.train_dpo(base, dr.preferences(debates), out=folder / "dpo", beta=0.5)
    result = dr.play_tournament([base, trained], questions, judge, rules, folder=folder / "tournament")
    print(debates[0].transcript.speeches[0].text.upper(), result.ratings.standings[0].rating.value)
    return result.judge_accuracy["dpo"].accuracy.value


dr.play(1, 2, 3)
dr.load_questions("lab").nothing
"""


@pytest.mark.slow
def test_whoever_installs_the_wheel_has_its_types_under_mypy_strict(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    zipfile.ZipFile(built[0]).extractall(site)
    # Of what it needs only the package that its records are made of: mypy would read all of torch for nothing.
    for name in ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"):
        place = Path(import_module(name).__file__)
        place = place.parent if place.name == "__init__.py" else place
        (site / place.name).symlink_to(place)
    (tmp_path / "use.py").write_text(CONSUMER, encoding="utf-8")
    options = ["--strict", "--python-executable", str(tmp_path / "venv/bin/python"), "--cache-dir", "cache"]
    command = [sys.executable, "-m", "mypy", *options, "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    wrong = [line for line in done.stdout.splitlines() if ": error: " in line]
    # Nothing is wrong but the last two lines, which are wrong on purpose: so the types are there.
    last = len(CONSUMER.splitlines())
    places = [int(line.split(":")[1]) for line in wrong]
    assert places == [last - 1] * 3 + [last], done.stdout + done.stderr
    assert 'expected "Debater"' in wrong[0] and '"nothing"' in wrong[3]


def test_an_unpacked_wheel_works_from_elsewhere(built, tmp_path):
    zipfile.ZipFile(built[0]).extractall(tmp_path / "site")
    script = (
        "import debate_rl, debate_rl.data.models as m, debate_rl.game.prompts, debate_rl.judges.judge;"
        "print(debate_rl.__file__, m.model_path('lab-base'), debate_rl.load_protocol('debate').name)"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path)) == 2 and done.stdout.strip().endswith("debate")


def test_the_rooms_at_the_root_are_not_importable_bare(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import judges"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
