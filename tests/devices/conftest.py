from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path):
    """Writes {path: text} under a root that stands in for "/", and gives the root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write
