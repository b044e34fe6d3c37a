"""HTML and SVG elements that are escaped by construction: what is not `Markup` is text, and text can't become an element."""

from __future__ import annotations

import re
from collections.abc import Iterable

VOID = frozenset(("br", "hr", "link", "meta"))

# Control characters and lone surrogates are no XML; bidirectional overrides could make a recipe read as another one.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already. Only `tag`, `join` and the package's own files make it."""

    __slots__ = ()


Child = Markup | str | int | float | None


def clean(text: str) -> str:
    """`text` without what a page, an SVG file or a terminal must not be given: each such character becomes U+FFFD."""
    return UNPRINTABLE.sub("�", text)


def escape(text: object) -> Markup:
    """Any value as text for an element or a quoted attribute."""
    safe = clean(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(safe.replace('"', "&quot;").replace("'", "&#39;"))


def join(children: Iterable[Child], between: str = "") -> Markup:
    """`children` one after another: `Markup` as it is, None left out, everything else escaped."""
    parts = (child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup(escape(between).join(parts))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """`<name …>children</name>`. `class_` is class, `aria_label` is aria-label.

    None and False leave an attribute out, True gives it no value.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = "" if value is True else f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
        written.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    opening = f"<{name}{''.join(written)}"
    if name in VOID:
        return Markup(f"{opening}>")
    return Markup(f"{opening}>{join(children)}</{name}>")
