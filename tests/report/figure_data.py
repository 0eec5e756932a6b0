"""What a figure shows, read from its specification."""

import base64
import gzip
import json
import xml.etree.ElementTree as ElementTree

from debate_rl.report.render import to_svg


def rows(figure, **wanted):
    """Data rows of a figure that have these values, each once, in order."""
    found = []
    for row in _values(figure.to_dict()):
        if row not in found and all(row.get(key) == value for key, value in wanted.items()):
            found.append(row)
    return found


def _values(spec):
    """Data of a view and of the views in it."""
    yield from spec.get("data", {}).get("values", ())
    for part in [*spec.get("layer", ()), *spec.get("vconcat", ())]:
        yield from _values(part)


def described(figure):
    """Data rows that stand for a mark with its description."""
    return [row for row in rows(figure) if "description" in row]


def drawn(figure):
    """The SVG's root element; refuses what is no XML."""
    return ElementTree.fromstring(to_svg(figure))


def texts(figure):
    """Texts that the SVG shows."""
    return [element.text for element in drawn(figure).iter() if element.tag.endswith("}text")]


def unpacked(path):
    """What a part of the debates beside the page holds."""
    return json.loads(gzip.decompress(base64.b64decode(path.read_text().split('"')[3])))
