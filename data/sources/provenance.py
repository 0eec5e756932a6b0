"""Origin of texts: their authors, licence, and where they are published."""

from __future__ import annotations

from debate_rl.records import Record

UNSTATED = "not stated"


class Source(Record):
    """Origin and licence of a data set, in its owner's words.

    Example:
        Source(name="nyu-human", licence="CC BY 4.0", by="Michael, Mahdi, Rein, Petty, Dirani, Padmakumar, Bowman 2023",
               url="https://github.com/julianmichael/debate")
    """

    name: str
    licence: str = UNSTATED
    by: str = ""
    url: str = ""


_NYU = {
    "licence": "CC BY 4.0",
    "by": "Michael, Mahdi, Rein, Petty, Dirani, Padmakumar, Bowman 2023",
    "url": "https://github.com/julianmichael/debate",
}
_LAB = {"licence": "Apache-2.0", "by": "debate-rl's generated world"}
KNOWN = {
    source.name: source
    for source in (
        Source(name="lab", **_LAB),
        Source(name="lab-human", **_LAB),
        Source(name="lab-gpt", **_LAB),
        Source(name="nyu", **_NYU),
        Source(name="nyu-human", **_NYU),
        Source(name="nyu-gpt", **_NYU),
        Source(
            name="khan",
            licence="MIT (their texts), CC BY 4.0 (QuALITY's questions and stories)",
            by="Khan, Hughes, Valentine et al. 2024",
            url="https://github.com/ucl-dark/llm_debate",
        ),
        Source(name="sciq", licence="CC BY-NC 3.0", by="Welbl, Liu, Gardner 2017", url="https://allenai.org/data/sciq"),
        Source(name="word_problems", licence="Apache-2.0", by="debate-rl's generated word problems"),
        Source(name="quality", licence="CC BY 4.0", by="Pang et al. 2022", url="https://github.com/nyu-mll/quality"),
    )
}
"""Sources whose licence is known, by name."""


def source_of(name: str, licence: str | None = None) -> Source:
    """Look up a source by name.

    Args:
        name: of the source; one that is not among `KNOWN` has no stated licence.
        licence: replaces the known one.
    """
    source = KNOWN.get(name, Source(name=name))
    if licence is None:
        return source
    return source.model_copy(update={"licence": licence})
