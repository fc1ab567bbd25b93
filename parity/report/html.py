"""HTML elements as strings. Children are HTML; attribute values are escaped here."""

from html import escape

VOID = ("path", "br", "img")
"""Elements without children, closed in place as SVG wants it."""


def element(tag: str, *children: str, **attributes: str | bool) -> str:
    """Returns one element.

    Args:
      tag: name of the element.
      *children: HTML, already escaped; see `html.escape`.
      **attributes: name -> value; True is a bare attribute, False none. A trailing
        underscore is dropped ("class_"), others become hyphens ("aria_label").
    """
    pairs = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return f"<{tag}{pairs}/>"
    return f"<{tag}{pairs}>{''.join(children)}</{tag}>"


def _attribute(name: str, value: str | bool) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
