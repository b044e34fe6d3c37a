"""What commands share in writing to a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def console() -> Console:
    return Console(highlight=False)


def clean(text: str, limit: int = 2000) -> Text:
    """`text` from a file that may be anybody's, not read as markup; control characters, which could move the cursor, become '·'."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return Text("".join(c if c.isprintable() else "·" for c in shown))


def section(out: Console, title: str | Text, body: RenderableType) -> None:
    """A heading and what belongs to it, indented."""
    out.print()
    out.print(title if isinstance(title, Text) else Text(title), style="bold")
    out.print(Padding(body, (0, 0, 0, 2)))


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what they are, in two columns; rows without a value are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(clean(name), clean(value))
    return table


def listing(*columns: str, right: Collection[str] = ()) -> Table:
    """A table without lines; columns named in `right` hold figures."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    return table
