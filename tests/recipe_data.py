"""The recipes' keys for the real data beside the project, in place of QuALITY's whole release."""

import json


def overrides(shared_data, tmp_path, recipe):
    """What a dry run of a recipe needs to know where the data are; instructions are made up."""
    human = shared_data / "nyu_2023"
    instructions = tmp_path / "alpaca.json"
    rows = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}"} for number in range(6)]
    instructions.write_text(json.dumps(rows))
    extra = []
    if recipe == "writeup":
        extra = [f"stages.sft_human.paths={{nyu-human: {human}, instructions: {instructions}}}"]
    return [
        *extra,
        "questions.source=nyu",
        f"questions.path={human}",
        "questions.human=null",
        f"stages.sft.paths={{nyu-human: {human}, nyu-gpt: {human}, instructions: {instructions}}}",
        f"stages.judge.path={human}",
        # The stand-in has 342 questions, of which 52 belong to the stories that weak-to-strong is given.
        "stages.weak_to_strong.supervisor=16",
        "stages.weak_to_strong.student=16",
        "stages.weak_to_strong.test=16",
    ]
