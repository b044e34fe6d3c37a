"""docs/format.md: its example runs, and what it shows of the bytes is what is in the file."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from edgewise import coding, package
from edgewise.coding.cursor import Cursor
from edgewise.package import layout, minimal, update
from edgewise.package.minimal import layout as layout_of_minimal

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
# Its parts, by headings of the first level: each form of file has its own offsets and its own bytes.
PARTS = dict(re.findall(r"^# (.*?)\n(.*?)(?=^# |\Z)", PAGE, re.DOTALL | re.MULTILINE))
TEXT, MINIMAL = PARTS["The `.edgew` format, version 1.0"], PARTS["The minimal profile"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the page's examples wrote their files."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT + MINIMAL, re.DOTALL):
        exec(compile(code, "docs/format.md", "exec"), names)
    return tmp_path


@pytest.fixture
def example(written: Path) -> bytes:
    return (written / "example.edgew").read_bytes()


def hexdump_line(data: bytes, at: int) -> str:
    piece = data[at : at + 16]
    shown = [" ".join(f"{byte:02x}" for byte in half) for half in (piece[:8], piece[8:])]
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
    return f"{at:08x}  {shown[0]:23}  {shown[1]:23}  |{text}|"


def test_the_hexdump_is_the_files(example: bytes) -> None:
    shown = [line for line in TEXT.splitlines() if re.match(r"[0-9a-f]{8}  ", line)]
    assert len(shown) >= 12
    assert shown == [hexdump_line(example, int(line[:8], 16)) for line in shown], "put these lines in docs/format.md"


def test_the_figures_in_the_text_are_the_files(example: bytes) -> None:
    (manifest_bytes,) = struct.unpack_from("<I", example, 12)
    start = -(-(128 + manifest_bytes) // 64) * 64
    opened = package.open("example.edgew")
    weights = next(member for member in opened.manifest.members if member.name == "weights")
    words = " ".join(TEXT.split())
    assert f"a file of {len(example):,} bytes" in words
    assert f"the manifest has {manifest_bytes} bytes, so the data start is {start:,};" in words
    assert f"at {start + weights.offset:,} the member `weights`" in words


def test_the_table_of_offsets_is_the_codes(example: bytes) -> None:
    offsets = dict(re.findall(r"^\| (\d+) \| (\d+) \|", TEXT, re.MULTILINE))
    assert {int(at): int(size) for at, size in offsets.items()} == {0: 8, 8: 2, 10: 2, 12: 4, 16: 8, 24: 8, 32: 32, 64: 64}
    assert struct.calcsize("<8sHHIQ") == 24
    assert layout.PREAMBLE_BYTES == 128
    assert example[:8] == bytes.fromhex(re.search(r"magic `([0-9A-F ]+)`", TEXT)[1])  # type: ignore[index]
    assert struct.unpack_from("<HH", example, 8) == (layout.MAJOR, layout.MINOR)
    assert struct.unpack_from("<Q", example, 16) == (len(example),)
    assert example[24:32] == bytes(8)
    assert example[32:64].hex() == package.open("example.edgew").content_id
    assert example[64:128] == bytes(64)


def test_the_table_of_an_update_is_the_codes() -> None:
    section = PARTS["Update files, `.edgewd`"]
    offsets = {int(at): int(size) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", section, re.MULTILINE)}
    assert offsets == {0: 8, 8: 2, 10: 2, 12: 4, 16: 8, 24: 8, 32: 32, 64: 32, 96: 32}
    assert (update.HEAD.size, update.OWN_BYTES) == (96, 32)
    assert bytes.fromhex(re.search(r"magic `([0-9A-F ]+)`", section)[1]) == update.MAGIC  # type: ignore[index]
    sizes = [struct.calcsize("<" + letters) for letters in ("8s", "H", "H", "I", "Q", "Q", "32s", "32s")]
    assert update.HEAD.format == "<8sHHIQQ32s32s" and sizes == list(offsets.values())[:-1]


def test_every_field_of_the_manifest_is_in_the_document() -> None:
    from dataclasses import fields

    for record in (package.Manifest, package.Entry, package.Tensor, package.Member):
        for field in fields(record):
            assert f"`{field.name}`" in TEXT, f"{record.__name__}.{field.name} isn't described"


def test_the_minimal_hexdump_is_the_files(written: Path) -> None:
    file = (written / "minimal.edgew").read_bytes()
    shown = [line for line in MINIMAL.splitlines() if re.match(r"[0-9a-f]{8}  ", line)]
    assert shown == [hexdump_line(file, at) for at in range(0, len(file), 16)], "put these lines in docs/format.md"
    assert file[:3] == bytes.fromhex(re.search(r"magic `([0-9A-F ]+)`", MINIMAL)[1])  # type: ignore[index]


def test_what_the_minimal_example_says_is_in_the_file(written: Path) -> None:
    file = (written / "minimal.edgew").read_bytes()
    found = layout_of_minimal.split(file, "the example")
    cursor = Cursor(found.structure)
    length = cursor.varint()
    plain = coding.decode(cursor.rest(), (length,), np.uint8).tobytes()
    assert plain == bytes.fromhex("".join(re.findall(r"^\| `([0-9a-f ]+)` \|", MINIMAL, re.MULTILINE)))
    start = minimal.sizes(file)["header"] + len(found.structure)
    words = " ".join(MINIMAL.split())
    assert f"a file of {len(file)} bytes" in words
    assert f"this takes {len(found.structure)} bytes. They stand for {length}:" in words
    assert f"The weights begin at {start}:" in words
    assert found.weights[0] == coding.CODERS["sparse"].number == 5
    assert f"the SHA-256 of the {len(file) - layout_of_minimal.HASH_BYTES} before" in words
    assert minimal.content_id(file) == hashlib.sha256(file[: -layout_of_minimal.HASH_BYTES]).digest()
