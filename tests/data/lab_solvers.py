"""Solvers of the lab's families that read a passage by regular expressions and know nothing of the generator."""

import re

TIMES = ["dawn", "morning", "noon", "afternoon", "dusk", "night", "midnight"]
MOVED = re.compile(r"the (\w+) was moved to the (\w+) at (\w+) by (\w+)\.")
ABOVE = re.compile(r"(\w+) is (\w+) than (\w+)\.")
PAID = re.compile(r"(\w+) paid (\w+) (\d+) coins for the (\w+)\.")
BRINGS = re.compile(r"reply (one|two) brings the (\w+)\.")
WANTS = re.compile(r"the guest wants the (\w+)\.")


def moves(text, thing):
    """Moves of a thing as (time, place, who), in the order of the day."""
    return sorted((TIMES.index(time), place, who) for what, place, time, who in MOVED.findall(text) if what == thing)


def whereabouts(text, asked, answers):
    """The place or person asked for, else None."""
    thing = re.search(r"(?:was|did|moved|move) the (?!last)(\w+)", asked)[1]
    day = moves(text, thing)
    before = re.search(r"before (\w+)", asked)
    if before:
        day = [move for move in day if move[0] < TIMES.index(before[1])]
    if not day:
        return None
    return day[-1][2] if asked.startswith("who") else day[-1][1]


def above(text, quality, high, low):
    """Links of the chain from one down to another, else None."""
    below = {one: other for one, what, other in ABOVE.findall(text) if what == quality}
    steps = 0
    while high in below:
        high, steps = below[high], steps + 1
        if high == low:
            return steps
    return None


def order(text, asked, answers):
    """Who stands above the other, else None."""
    quality = re.search(r"is (\w+)\?", asked)[1]
    found = [a for a, b in (answers, answers[::-1]) if above(text, quality, a, b)]
    return found[0] if len(found) == 1 else None


def payments(text, payer):
    """Coins of each payment that somebody made."""
    return [int(coins) for who, _, coins, _ in PAID.findall(text) if who == payer]


def accounts(text, asked, answers):
    """What somebody paid in all."""
    payer = re.search(r"did (\w+) pay|that (\w+) paid", asked)
    return str(sum(payments(text, payer[1] or payer[2])))


def wishes_met(text, reply):
    """What a reply brings of what the guest wants."""
    return {thing for which, thing in BRINGS.findall(text) if which == reply} & set(WANTS.findall(text))


def preference(text, asked, answers):
    """The reply that meets more wishes, else None."""
    met = {reply: len(wishes_met(text, reply)) for reply in ("one", "two")}
    return None if met["one"] == met["two"] else max(met, key=met.get)


SOLVERS = {"whereabouts": whereabouts, "order": order, "accounts": accounts, "preference": preference}


def fact(family, text, query):
    """The answer to a short query about a story, else None."""
    return {"whereabouts": _moved, "order": _ranked, "accounts": _paid, "preference": _replied}[family](text, query)


def _moved(text, query):
    thing, *rest = query.split()
    day = moves(text, thing)
    if rest[0] == "at":
        return next(place for time, place, _ in day if TIMES[time] == rest[1])
    if rest[0] == "before":
        return [place for time, place, _ in day if time < TIMES.index(rest[1])][-1]
    return {"end": day[-1][1], "last": day[-1][1], "last who": day[-1][2], "end when": TIMES[day[-1][0]]}[
        " ".join(rest[:1] if "or" in rest else rest)
    ]


def _ranked(text, query):
    words = query.split()
    if words[-1] == "than":
        return next(low for high, what, low in ABOVE.findall(text) if (high, what) == (words[0], words[1]))
    quality, one, _, other = words
    return one if above(text, quality, one, other) else other if above(text, quality, other, one) else None


def _paid(text, query):
    payer, what, *payees = query.split()
    if what == "total":
        return str(sum(payments(text, payer)))
    return str(sum(int(coins) for who, whom, coins, _ in PAID.findall(text) if who == payer and whom in payees))


def _replied(text, query):
    words = query.split()
    if words[0] == "guest":
        return "yes" if words[-1] in WANTS.findall(text) else "no"
    if words[0] == "better":
        return preference(text, "", ())
    if words[-1] == "wishes":
        return str(len(wishes_met(text, words[1])))
    return "yes" if (words[1], words[-1]) in BRINGS.findall(text) else "no"
