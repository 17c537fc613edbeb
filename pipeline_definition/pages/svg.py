"""Matplotlib figures as inline SVG that takes its colours and fonts from the page.

So one drawing reads well in light and in dark, text stays text, and the same figure gives the same bytes. Reads
chart.mplstyle.
"""

import io
import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

# Each colour of a drawing is replaced by the variable of its name in the page's style.
INK, MUTED, RULE, ACCENT = "#000001", "#000002", "#000003", "#000004"
SECOND, THIRD, FAIL, PAPER = "#000005", "#000006", "#000008", "#000009"
_NAMES: Final = {
    **{INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent"},
    **{SECOND: "second", THIRD: "third", FAIL: "fail", PAPER: "paper"},
}
_FAMILY: Final = re.compile(r"font-family: [^;]+;? ?")
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))
STYLE: Final = Path(__file__).with_name("chart.mplstyle")


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure, drawn in STYLE, as SVG for a page; `name` keeps its ids apart from other figures'."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    _clean(root, name)
    root.attrib = {"class": "chart", "role": "img", "aria-label": description, "viewBox": root.attrib["viewBox"]}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(root: ElementTree.Element, name: str) -> None:
    """Remove what a page does not need, namespaces and outside addresses included."""
    for parent in list(root.iter()):
        for child in list(parent):
            # Metadata names the library's address; the style would apply to the whole page.
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
    referenced = {element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib}
    for element in root.iter():
        if element.tag != "clipPath" and element.get("id") not in referenced:
            element.attrib.pop("id", None)
        element.attrib = {key: _value(key, value, name) for key, value in element.attrib.items()}


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}"
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = _FAMILY.sub("", value)
    for colour, variable in _NAMES.items():
        value = value.replace(colour, f"var(--{variable})")
    return value


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
