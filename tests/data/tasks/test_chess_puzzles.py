import builtins

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.data.tasks.chess_puzzles import Puzzle, _best, as_question, generate, load_lichess, move_in, score
from debate_rl.errors import UserError

chess = pytest.importorskip("chess", reason="needs the extra `chess`")

BACK = Puzzle(id="p", fen="6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1", kind="mate", moves=("a1a8",), group="g")
HEADER = "PuzzleId,FEN,Moves,Rating,RatingDeviation,Popularity,NbPlays,Themes,GameUrl,OpeningTags\n"
ROW = (
    "abc,6k1/5ppp/8/8/8/8/r7/R5K1 b - - 0 1,a2f2 a1a8,812,75,90,9,mateIn1 short,https://lichess.org/xyz12345/black#4,\n"
)


@pytest.mark.parametrize("text", ["Ra8", "Ra8#", "a1a8", "1. Ra8+ and mates", "The move is a1a8.", "Best: **Ra8#**"])
def test_moves_in_any_notation_are_one_move(text):
    assert score(BACK, text)


@pytest.mark.parametrize("text", ["Ra7", "a1a7", "", "no idea", "Ra7, not Ra8", "Qa8"])
def test_other_moves_are_wrong(text):
    assert not score(BACK, text)


def test_castling_and_promotion():
    assert move_in("4k3/8/8/8/8/8/8/4K2R w K - 0 1", "0-0") == "e1g1"
    assert (
        move_in("8/P3k3/8/8/8/8/8/4K3 w - - 0 1", "a8=Q")
        == "a7a8q"
        == move_in("8/P3k3/8/8/8/8/8/4K3 w - - 0 1", "a7a8q")
    )


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_generated_mates_are_all_the_mates(seed):
    for puzzle in generate(2, seed):
        board = chess.Board(puzzle.fen)
        mates = set()
        for move in board.legal_moves:
            after = board.copy()
            after.push(move)
            mates |= {move.uci()} if after.is_checkmate() else set()
        assert mates == set(puzzle.moves)


def test_a_seed_gives_the_same_puzzles_and_a_shorter_draw_is_its_beginning():
    three = generate(3, 1)
    assert three[:2] == generate(2, 1) and three != generate(3, 2)
    assert len({puzzle.group for puzzle in three}) == 3


@pytest.mark.parametrize(
    ("fen", "best"),
    [
        ("6k1/8/8/3q4/8/8/8/3R2K1 w - - 0 1", ["d1d5"]),  # the queen hangs
        ("6k1/8/4p3/3p4/8/8/8/3R2K1 w - - 0 1", []),  # a pawn is guarded: nothing wins three points
        ("6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1", []),  # a mate is no puzzle of this kind
    ],
)
def test_the_best_move_wins_material(fen, best):
    board = chess.Board(fen)
    assert [move.uci() for move in _best(board, list(board.legal_moves))] == best


def test_generated_best_moves_have_one_answer_and_no_mate():
    (puzzle,) = generate(1, 0, "best")
    board = chess.Board(puzzle.fen)
    assert len(puzzle.moves) == 1 and score(puzzle, puzzle.moves[0])
    assert not any(board.san(move).endswith("#") for move in board.legal_moves)


def test_a_question_has_a_right_and_a_wrong_move_without_marks():
    asked = [as_question(puzzle, 3) for puzzle in generate(8, 5)]
    for question, puzzle in zip(asked, generate(8, 5), strict=True):
        assert score(puzzle, question.answers[question.correct])
        assert not score(puzzle, question.answers[1 - question.correct])
        assert not any(mark in answer for answer in question.answers for mark in "+#")
        assert question.cluster == puzzle.group and puzzle.fen in question.text
    assert {question.correct for question in asked} == {0, 1}


def test_lichess_rows_are_read_after_the_first_move(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(HEADER + ROW)
    (puzzle,) = load_lichess(path)
    assert (puzzle.id, puzzle.kind, puzzle.moves) == ("lichess-abc", "mate", ("a1a8",))
    assert (puzzle.rating, puzzle.group) == (812, "lichess-xyz12345")
    assert puzzle.fen.split()[1] == "w"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n", "no column 'PuzzleId'"),
        (HEADER, "no puzzles"),
        (HEADER + ROW.replace("a2f2 a1a8", "a2f2"), "p.csv:2: not a Lichess puzzle: Moves needs"),
        (HEADER + ROW.replace("a1a8", "a1a9"), "p.csv:2: not a Lichess puzzle"),
        (HEADER + ROW.replace("6k1/", "9k1/"), "p.csv:2: not a Lichess puzzle"),
        (HEADER + ROW.replace("a2f2", "a2a1"), "p.csv:2: not a Lichess puzzle"),
    ],
)
def test_malformed_files_are_named(tmp_path, text, complaint):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=complaint):
        load_lichess(tmp_path / "p.csv")


def test_without_python_chess_the_fix_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **named):
        if name == "chess":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'debate-rl\[chess\]'"):
        generate(1)
