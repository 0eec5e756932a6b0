from debate_rl.data.tiny import build
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Message, Request, Sampling


def test_a_tiny_model_reads_any_text_and_writes_something(tmp_path):
    text = "The caf\u00e9 \u2014 said Ines \u2014 is closed. " * 50
    (tmp_path / "t.txt").write_text(text)
    folder = build(tmp_path / "model", tmp_path / "t.txt", positions=2048)
    tokenizer = TransformersEngine()._networks.load(str(folder)).tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text and len(ids) < len(text) / 2
    request = Request(
        messages=(Message(role="user", content=text),), model=str(folder), sampling=Sampling(max_new_tokens=5)
    )
    assert TransformersEngine().generate([request])[0].new_tokens > 0
