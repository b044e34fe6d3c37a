from __future__ import annotations

from html.parser import HTMLParser
from xml.dom import minidom

from hypothesis import given
from hypothesis import strategies as st

from edgewise.report.markup import Markup, clean, join, tag


class Reader(HTMLParser):
    """An independent reading of what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.attributes = dict(attributes)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(alphabet=st.characters(exclude_characters="\r")))
def test_any_text_comes_back_as_text(words: str) -> None:
    written = tag("p", words, title=words)
    reader = Reader()
    reader.feed(written)
    reader.close()
    assert reader.tags == ["p"]
    assert reader.text == clean(words)
    assert reader.attributes["title"] == clean(words)
    minidom.parseString(written.encode())  # and it is XML: an SVG file can hold it


def test_markup_is_kept_and_text_is_not() -> None:
    assert join([Markup("<b>"), "<b>", None, 3]) == "<b>&lt;b&gt;3"


def test_attributes() -> None:
    written = tag("a", aria_label="x", class_="y", hidden=True, gone=None, off=False, x=1.500)
    assert written == '<a aria-label="x" class="y" hidden="" x="1.5"></a>'


def test_what_could_deceive_a_reader_is_replaced() -> None:
    assert clean("a\x00\x1b[31m\u202eb\ud800\tc\n") == "a��[31m�b�\tc\n"
