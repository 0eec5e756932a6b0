"""What tests of the command line share; the fixture `call` of conftest.py runs it."""


def mistake(result):
    """The one line that a user's mistake ends in."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("debate-rl: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, result
    return lines[0]
