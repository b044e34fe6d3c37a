"""The document: markup, style and script in one answer, and a policy that allows no other."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from edgewise.report import palette


@cache
def document() -> bytes:
    """HTML, UTF-8: asks for nothing but `page/figures`, relative to where it stands, and the repository's load and unload."""
    return _file("page.html").replace("/*style*/", _style()).replace("/*script*/", _file("page.js")).encode()


def _style() -> str:
    """The report's, with the page's own behind it."""
    report = (files("edgewise.report") / "style.css").read_text(encoding="utf-8")
    return (
        f":root{{{palette.variables(palette.LIGHT)}}}"
        f"@media (prefers-color-scheme: dark){{:root{{{palette.variables(palette.DARK)}}}}}\n{report}\n{_file('page.css')}"
    )


def _file(name: str) -> str:
    return (files("edgewise.serve.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# To be sent with the document. Style and script are allowed by hash: a hole in the escaping still couldn't run a script.
HEADERS: dict[str, str] = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-cache",
    "content-security-policy": (
        f"default-src 'none'; style-src {_hash(_style())}; script-src {_hash(_file('page.js'))}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
