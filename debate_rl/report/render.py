"""Rendering: a figure as SVG that stands in the page, or as a file of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape, unescape
from pathlib import Path
from typing import Any, Literal

import altair as alt
import vl_convert

from debate_rl.records import write_pieces
from debate_rl.report.chart import Figure
from debate_rl.report.wording import printable

# The renderer knows minor versions: "6.4" for Altair's "v6.4.1".
_VEGA_LITE = alt.SCHEMA_VERSION.lstrip("v").rpartition(".")[0]
_MARK = re.compile(r'<path aria-label="([^"]*)"([^>]*)/>')
_VARIABLE = re.compile(r"var\(--[a-z-]+, (#[0-9a-f]{6})\)")

FileFormat = Literal["pdf", "svg", "png"]


def to_svg(figure: Figure, page: str | None = "") -> str:
    """Render a figure as one `<svg>` element to stand in an HTML page.

    Hovering over a mark says what it is, and a mark with a link leads to its debates.
    The same figure gives the same bytes: fonts and renderer come with the library, and nothing is fetched.

    Args:
        figure: as the functions of `figures` make it.
        page: address of the page to whose debates the marks lead; empty for the one in which the figure stands, None
            for marks without links.

    Returns:
        The element, without a size of its own (the style sheet gives it), with a title and an alternative text.
    """
    # The schema has been checked where the figure was made; once more would take half of the time.
    spec = _printable(figure.to_dict(validate=False))
    svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE)
    opening, content = svg.split(">", 1)
    box = opening.split('viewBox="')[1].split('"')[0]
    title, description = escape(spec["title"]["text"]), escape(spec["description"])
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="{box}" role="img" aria-label="{description}">'
    )
    return f"{root}<title>{title}</title>{_explained(content, spec['usermeta']['marks'], page)}"


def write_figure(figure: Figure, path: Path, file_format: FileFormat) -> None:
    """Write a figure as a file of its own, on white, in the colours of the light scheme.

    Raises:
        UserError: the file can not be written.
    """
    spec = _literal_colours(_printable(figure.to_dict(validate=False)))
    spec["background"] = "#ffffff"
    if file_format == "svg":
        content = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE).encode()
    elif file_format == "pdf":
        content = vl_convert.vegalite_to_pdf(spec, vl_version=_VEGA_LITE)
    else:
        content = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, scale=3)
    write_pieces(path, [content])


def _explained(content: str, marks: Iterable[tuple[str, str]], page: str | None) -> str:
    """Give each mark that a figure describes its hover text and its link."""
    links = dict(marks)

    def explain(match: re.Match[str]) -> str:
        link = links.get(unescape(match[1]))
        if link is None:
            return match[0]  # a mark that only the renderer describes, such as a line
        mark = f'<path aria-label="{match[1]}"{match[2]}><title>{match[1]}</title></path>'
        return f'<a href="{escape(page + link)}">{mark}</a>' if link and page is not None else mark

    return _MARK.sub(explain, content)


def _literal_colours(value: Any) -> Any:
    """A specification with plain colours: only a page has variables."""
    if isinstance(value, str):
        variable = _VARIABLE.fullmatch(value)
        return variable[1] if variable else value
    if isinstance(value, dict):
        return {key: _literal_colours(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_literal_colours(entry) for entry in value]
    return value


def _printable(value: Any) -> Any:
    """A specification with only characters that XML allows: one other ends the process of the renderer."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return value
