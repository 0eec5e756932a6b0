import threading
import time

import pytest

from debate_rl.engines.request import Message
from debate_rl.engines.server.budget import TEMPLATE, Budget, Paid, Price, most_prompt_tokens
from debate_rl.errors import UserError

PRICE = Price(prompt=2.0, new=8.0, cached=0.5)


def test_what_is_paid_is_summed_by_model_and_priced(tmp_path):
    budget = Budget(tmp_path / "paid.jsonl", prices={"m": PRICE})
    budget.pay(Paid(model="m", prompt=1000, cached=400, new=100))
    budget.pay(Paid(model="m", prompt=500, new=50))
    assert budget.spent_tokens == 1650
    assert budget.spent_money == pytest.approx((600 * 2 + 400 * 0.5 + 500 * 2 + 150 * 8) / 1e6)
    told = {"answers": 2, "prompt_tokens": 1500, "cached_tokens": 400, "new_tokens": 150, "cost": 0.0036}
    assert budget.summary() == told
    budget.pay(Paid(model="free", prompt=1, new=1))
    assert budget.spent_money is None and "cost" not in budget.summary()


def test_two_budgets_of_one_ledger_count_together_and_a_torn_line_does_not(tmp_path):
    path = tmp_path / "paid.jsonl"
    first, second = Budget(path, tokens=1000), Budget(path, tokens=1000)
    first.pay(Paid(model="m", prompt=600, new=0))
    with pytest.raises(UserError, match="600 of 1,000 tokens"), second.hold("m", 300, 101):
        pass
    with path.open("a") as file:
        file.write('{"model": "m", "prompt": 99')
    assert Budget(path).spent_tokens == 600
    second.pay(Paid(model="m", prompt=10, new=0))
    assert Budget(path).spent_tokens == 610 == second.spent_tokens


def test_who_does_not_fit_waits_for_what_is_under_way():
    budget, order = Budget(tokens=100), []

    def ask(name, most, cost, seconds):
        with budget.hold("m", most, 0):
            order.append(name)
            time.sleep(seconds)
            budget.pay(Paid(model="m", prompt=cost, new=0))

    first = threading.Thread(target=ask, args=("first", 80, 30, 0.2))
    first.start()
    time.sleep(0.05)
    began = time.monotonic()
    ask("second", 60, 60, 0)
    first.join()
    assert order == ["first", "second"] and time.monotonic() - began > 0.1
    with pytest.raises(UserError, match="90 of 100 tokens are spent, and the next request may take 11"):
        ask("third", 11, 1, 0)
    ask("fourth", 10, 10, 0)
    assert budget.spent_tokens == 100


def test_a_failed_request_gives_back_what_was_set_aside():
    budget = Budget(tokens=100)
    with pytest.raises(ZeroDivisionError), budget.hold("m", 100, 0):
        raise ZeroDivisionError
    with budget.hold("m", 50, 50):
        pass


def test_a_prompt_has_at_most_a_token_a_byte():
    assert most_prompt_tokens((Message(role="user", content="añb"),)) == 4 + TEMPLATE


def test_each_process_writes_a_ledger_of_its_own_and_counts_all(tmp_path):
    first, second = (Budget(tmp_path / "paid.jsonl", tokens=100, rank=rank) for rank in (0, 1))
    first.pay(Paid(model="m", prompt=30, new=10))
    second.pay(Paid(model="m", prompt=20, new=10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["paid-1.jsonl", "paid.jsonl"]
    assert second.spent_tokens == 70
    with pytest.raises(UserError, match="70 of 100 tokens are spent"), first.hold("m", 30, 10):
        pass
