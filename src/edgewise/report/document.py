"""What every page is made of: one file that needs nothing else, with its style sheet, its script, and a policy that allows no other."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from edgewise.report import charts, palette
from edgewise.report.markup import Markup, tag

Section = tuple[str, str, Markup]  # id, title, content


def document(title: str, banner: Markup, sections: Sequence[Section | None], footer: Markup) -> str:
    """`sections` one below the other, linked at the top; the first one, "verdict", brings its own heading.

    The content policy allows the page's own script by hash and nothing else, so that even a hole in the escaping couldn't run a script.
    """
    script, style = _file("script.js"), _styles()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · edgewise"),
        tag("style", Markup(style)),
    )
    shown = [section for section in sections if section is not None]
    links = [tag("a", name, href=f"#{id_}") for id_, name, _ in shown]
    body = tag(
        "body",
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        banner,
        tag("nav", *links, aria_label="Sections"),
        tag("main", *(_section(*section) for section in shown), id="main"),
        footer,
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _section(name: str, title: str, content: Markup) -> Markup:
    heading = None if name == "verdict" else tag("h2", title, id=f"{name}-title")
    return tag("section", heading, content, id=name, tabindex="-1", aria_labelledby=f"{name}-title")


def banner(name: str, about: str) -> Markup:
    return tag("header", tag("p", "edgewise report", class_="brand"), tag("p", tag("strong", name), tag("span", about)))


def footer(last: str) -> Markup:
    return tag(
        "footer",
        tag("p", "Intervals are 95 %. Decisions read the validation split; the verdict reads the test split, once."),
        tag("p", "1 MB is 1,000,000 bytes; one point is 0.01 of a metric from 0 to 1."),
        tag("p", last),
    )


def _file(name: str) -> str:
    return files("edgewise.report").joinpath(name).read_text(encoding="utf-8")


def _styles() -> str:
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {palette.variables(palette.DARK)} }} }}"
    return f":root {{ {palette.variables(palette.LIGHT)} }}\n{dark}\n{_file('style.css')}\n{charts.css()}"
