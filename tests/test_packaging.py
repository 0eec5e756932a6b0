"""The wheel, the sdist and the editable install hold the same package, and own one name."""

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests import ROOT

WANTED = (
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
