import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError
from debate_rl.paths import remove_folder


@pytest.fixture
def place(tmp_path):
    """A run's folder with a stage in it, and something precious beside it."""
    for folder in ("run/sft/adapter", "run/store", "precious"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("x")
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_inside_is_removed_and_nothing_else(place):
    remove_folder(place / "run" / "sft", place / "run")
    remove_folder(place / "run" / "none", place / "run")
    assert files(place) == ["precious/file", "run/store/file"]


@pytest.mark.parametrize("path", ["", ".", "..", "../precious", "sft/..", "sft/../..", "sft/../../precious"])
def test_what_is_not_strictly_inside_stays(place, path):
    before = files(place)
    with pytest.raises(UserError, match="not lie inside"):
        remove_folder(place / "run" / path, place / "run")
    assert files(place) == before


def test_links_are_removed_and_what_they_lead_to_stays(place):
    (place / "run" / "link").symlink_to(place / "precious")
    remove_folder(place / "run" / "link", place / "run")
    assert not (place / "run" / "link").is_symlink() and (place / "precious" / "file").is_file()
    (place / "run" / "way").symlink_to(place)
    with pytest.raises(UserError, match="not lie inside"):
        remove_folder(place / "run" / "way" / "precious", place / "run")
    (place / "run" / "sft" / "inner").symlink_to(place / "precious")
    remove_folder(place / "run" / "sft", place / "run")
    assert (place / "precious" / "file").is_file()


@given(st.lists(st.sampled_from(["..", ".", "sft", "store", "precious", "run", "x"]), max_size=6))
def test_no_path_of_any_parts_reaches_what_lies_outside(tmp_path_factory, parts):
    base = tmp_path_factory.mktemp("base")
    for folder in ("run/sft/x", "run/store", "precious"):
        (base / folder).mkdir(parents=True)
    with contextlib.suppress(UserError):
        remove_folder((base / "run").joinpath(*parts), base / "run")
    assert (base / "precious").is_dir() and (base / "run").is_dir()
