"""Texts as they enter: what UTF-8 can not encode is replaced, and letters in disguise are recognised."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

_UNCLEAN = re.compile("[\ud800-\udfff\x00]")

_LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u0410\u0412\u0415\u041a\u041c\u041d\u041e"
    "\u0420\u0421\u0422\u0425\u0406\u0408\u0391\u0392\u0395\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03bf"
    "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u0280\ua731"
    "\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22\u0261"
    "\u2236\ua789\u02d0\u02f8\u05c3\u0589\ua4fd\u0703\u0704\u205a"
    "\u01c0\u2223\u23d0\u2502\u2503\u2758\u2039\u203a\u2329\u232a\u27e8\u27e9\u3008\u3009\u27e6\u27e7\u301a\u301b\u3010\u3011",
    "aeopcyxsijdABEKMHOPCTXIJABEIKMNOPTXoabcdefghijklmnoprstuvwyzg::::::::::||||||<><><><>[][][]",
)
"""Letters of the Cyrillic and Greek alphabets, small capitals, colons, bars and brackets that look like ASCII."""

_ENCLOSED = {first + letter: ord("A") + letter for first, letter in product((0x1F150, 0x1F170, 0x1F1E6), range(26))}
"""White capital letters in black circles and squares, and the letters of flags."""

BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are drawn as nothing."""

_PLAIN = re.compile(r"[\t\n\r -~]*\Z")


def clean_text(text: str) -> str:
    """Replace half surrogate pairs, which UTF-8 can not encode, and NUL by U+FFFD.

    Example:
        >>> clean_text("a\\ud83d b")
        'a\ufffd b'
    """
    return _UNCLEAN.sub("\ufffd", text)


def clean_value(value: Any) -> Any:
    """Clean all texts in a JSON-like value, keys included (see `clean_text`)."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): clean_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean_value(inner) for inner in value]
    return value


def folded(text: str) -> tuple[str, Sequence[int] | None]:
    """Replace every letter by the plain letter that it looks like.

    Wide, bold and accented forms become the letter, letters of other alphabets that look like Latin ones become these,
    and characters without width are removed.

    Returns:
        The folded text, and for each of its characters the index in the original; None if every index is the same.

    Example:
        >>> folded("\uff1cb\u200b>")
        ('<b>', [0, 1, 3])
    """
    if _PLAIN.match(text):
        return text, None
    forms = {character: _folded_character(character) for character in set(text)}
    table = {ord(character): form for character, form in forms.items() if form != character}
    uneven = "".join(sorted(character for character, form in forms.items() if len(form) != 1))
    # Most texts have few letters beyond ASCII, each folded to one letter, so all indices stay.
    if not uneven:
        return text.translate(table), None
    # Only letters that become none or several shift the others: the text between them is translated as a whole, which
    # is many times as fast as letter by letter.
    pieces: list[str] = []
    origins: list[int] = []
    start = 0
    for match in re.finditer(f"[{re.escape(uneven)}]", text):
        index = match.start()
        form = forms[match[0]]
        pieces += [text[start:index].translate(table), form]
        origins += range(start, index)
        origins += [index] * len(form)
        start = index + 1
    pieces.append(text[start:].translate(table))
    origins += range(start, len(text))
    return "".join(pieces), origins


def spaced_after(text: str, indices: Iterable[int], origins: Sequence[int] | None) -> str:
    """Insert a space after some characters, to break the marks that begin with them.

    Args:
        text: the text before `folded`.
        indices: of the characters in the folded text.
        origins: index in the text of each folded character, from `folded`.

    Example:
        >>> spaced_after("a <b>", [2], None)
        'a < b>'
    """
    pieces = []
    start = 0
    cuts = set(indices) if origins is None else {origins[index] for index in indices}
    for cut in sorted(cuts):
        pieces.append(text[start : cut + 1])
        start = cut + 1
    pieces.append(text[start:])
    return " ".join(pieces)


@lru_cache(maxsize=4096)
def _folded_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or character in BLANK:
        return ""
    if category == "Cc" and character not in "\t\n\r":
        return ""
    # Tokenizers may decompose letters and drop strokes and accents: a struck-through "<" then becomes a plain one.
    parts = unicodedata.normalize("NFKD", character.translate(_ENCLOSED))
    bare = "".join(part for part in parts if unicodedata.category(part) not in ("Mn", "Me"))
    return unicodedata.normalize("NFC", bare).translate(_LOOK_ALIKES)
