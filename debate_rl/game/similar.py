"""Where a text is most like a quote, in time linear in the quote.

rapidfuzz slides the quote along the text, which takes the square of the quote's length: 40 s for 3,000 words that a
story does not hold. So a long quote is cut into pieces. Where no piece is similar to any span, the whole is to none;
else the quote is aligned with the surroundings of the pieces that are (Myers 1999, "A fast bit-vector algorithm for
approximate string matching based on dynamic programming", J. ACM 46(3)).
"""

from __future__ import annotations

from rapidfuzz import fuzz

LONG = 400
"""Characters up to which rapidfuzz is asked about a quote as a whole."""

Span = tuple[int, int]


def most_similar(quote: str, text: str, threshold: float) -> Span | None:
    """Span of the text that is most like the quote; None where nothing is as similar as the threshold, in percent.

    The span's own similarity may still be a little below the threshold.
    """
    if len(quote) <= LONG:
        place = fuzz.partial_ratio_alignment(quote, text, score_cutoff=threshold)
        if place is None or place.dest_end <= place.dest_start:
            return None
        return place.dest_start, place.dest_end
    best: tuple[int, Span] | None = None
    for low, high in _surroundings(quote, text, threshold):
        distance, end = _nearest_end(quote, text[low:high])
        _, length = _nearest_end(quote[::-1], text[low : low + end][::-1])
        span = low + end - length, low + end
        if length and (best is None or distance < best[0]):
            best = distance, span
    return None if best is None else best[1]


def _surroundings(quote: str, text: str, threshold: float) -> list[Span]:
    """Stretches of the text in which the whole quote may lie, by where its pieces are found; none of them meet."""
    share = max(threshold, 1.0) / 100
    # Were every piece less similar than the threshold to each span, so would be the whole. rapidfuzz tries spans of a
    # piece's own length only: at a similarity s the best span may be (2 - s) / s as long, and cut it gives 3 - 2 / s.
    least = 100 * max(0.0, 3 - 2 / share)
    slack = round(len(quote) * min(1.0, 2 / share - 2)) + 1
    pieces = -(-len(quote) // LONG)
    stretches: list[Span] = []
    for piece in range(pieces):
        first, last = len(quote) * piece // pieces, len(quote) * (piece + 1) // pieces
        place = fuzz.partial_ratio_alignment(quote[first:last], text, score_cutoff=least)
        if place is not None:
            start = place.dest_start - first
            stretches.append((max(0, start - slack), min(len(text), start + len(quote) + slack)))
    merged: list[Span] = []
    for low, high in sorted(stretches):
        if merged and low <= merged[-1][1]:
            low, high = merged[-1][0], max(high, merged.pop()[1])
        if low < high:
            merged.append((low, high))
    return merged


def _nearest_end(pattern: str, text: str) -> tuple[int, int]:
    """Fewest changed characters between the pattern and any span of the text, and where the first such span ends.

    One column of the table of distances is two whole numbers, one bit for each character of the pattern: in which
    rows the distance rises by one from the row above, and in which it falls.
    """
    size = len(pattern)
    full, top = (1 << size) - 1, 1 << (size - 1)
    places: dict[str, int] = {}
    for place, character in enumerate(pattern):
        places[character] = places.get(character, 0) | 1 << place
    rises, falls = full, 0
    distance, best = size, (size, 0)
    for end, character in enumerate(text, start=1):
        equal = places.get(character, 0)
        diagonal = equal | falls
        across = (((equal & rises) + rises) ^ rises) | equal
        up = falls | (full & ~(across | rises))
        down = rises & across
        if up & top:
            distance += 1
        elif down & top:
            distance -= 1
        # Shifted in is a 0: a span may begin anywhere in the text at no cost.
        up, down = up << 1, down << 1
        rises = full & (down | ~(diagonal | up))
        falls = full & up & diagonal
        if distance < best[0]:
            best = distance, end
    return best
