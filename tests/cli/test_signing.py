"""`keygen`, `sign`, `verify`, `diff`, `patch`, and `run --keys`: from the shell, with what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewise import package
from edgewise.graph import Graph
from edgewise.package import Provenance

Edgewise = Callable[..., tuple[int, str, str]]


@pytest.fixture
def maker(edgewise: Edgewise, tmp_path: Path) -> Path:
    """The private key; the public one lies in `trusted/`."""
    assert edgewise("keygen", "-o", tmp_path / "maker.key")[0] == 0
    (tmp_path / "trusted").mkdir()
    (tmp_path / "maker.pub").rename(tmp_path / "trusted" / "maker.pub")
    return tmp_path / "maker.key"


@pytest.fixture
def release(edgewise: Edgewise, model: Path, maker: Path, tmp_path: Path) -> Callable[[int], Path]:
    def signed(version: int) -> Path:
        path = tmp_path / f"v{version}.edgew"
        graph = Graph.load(model)
        weight = next(tensor for tensor in graph.proto.graph.initializer if tensor.name == "w")
        weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1 + version / 1000)).tobytes()
        made = package.build(graph, created="2026-01-01T00:00:00Z", version=version, provenance=Provenance("tiny"))
        made.save(path)
        assert edgewise("sign", path, "--key", maker)[0] == 0
        return path

    return signed


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    return tmp_path / "x.npy"


def test_from_a_key_to_a_verified_package(edgewise: Edgewise, release: Callable[[int], Path], tmp_path: Path) -> None:
    path, trusted = release(3), tmp_path / "trusted"
    code, out, _ = edgewise("verify", path, "--keys", trusted)
    assert code == 0
    for said in ("signed by maker (", "model tiny", "version 3", package.open(path).content_id):
        assert said in " ".join(out.split())
    assert edgewise("verify", path, "--key", trusted / "maker.pub")[0] == 0
    record = json.loads(edgewise("verify", path, "--keys", trusted, "--json")[1])
    assert (record["signed_by"]["name"], record["version"], record["model"]) == ("maker", 3, "tiny")
    assert len(record["signed_by"]["id"]) == 16
    assert "signed (edgewise verify says by whom)" in " ".join(edgewise("inspect", path)[1].split())
    assert json.loads(edgewise("inspect", path, "--json")[1])["signed"] is True
    (trusted / "revoked").write_text(record["signed_by"]["id"] + "\n")
    code, _, err = edgewise("verify", path, "--keys", trusted)
    assert (code, "which is revoked" in err) == (2, True)
    assert edgewise("verify", path)[0] == 2  # without keys there is nothing to verify by


def test_signing_to_another_file_and_again(edgewise: Edgewise, release: Callable[[int], Path], maker: Path, tmp_path: Path) -> None:
    path = release(1)
    before = path.read_bytes()
    assert edgewise("keygen", "-o", tmp_path / "other.key")[0] == 0
    code, out, _ = edgewise("sign", path, "--key", tmp_path / "other.key", "-o", tmp_path / "copy.edgew")
    assert (code, "the signature that it had" in out) == (0, True)
    assert path.read_bytes() == before
    assert edgewise("verify", tmp_path / "copy.edgew", "--key", tmp_path / "other.pub")[0] == 0
    assert edgewise("verify", tmp_path / "copy.edgew", "--keys", tmp_path / "trusted")[0] == 2


def test_keys_are_not_overwritten(edgewise: Edgewise, maker: Path, tmp_path: Path) -> None:
    before = maker.read_bytes()
    code, _, err = edgewise("keygen", "-o", maker)
    assert (code, "--force" in err) == (2, True)
    assert maker.read_bytes() == before
    assert edgewise("keygen", "-o", maker, "--force")[0] == 0
    assert maker.read_bytes() != before


def test_an_encrypted_key(edgewise: Edgewise, release: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = release(1), tmp_path / "locked.key"
    monkeypatch.setenv("EDGEWISE_PASSPHRASE", "geheim")
    assert edgewise("keygen", "-o", key, "--encrypt")[0] == 0
    assert b"ENCRYPTED" in key.read_bytes()
    assert edgewise("sign", path, "--key", key)[0] == 0
    assert edgewise("verify", path, "--key", tmp_path / "locked.pub")[0] == 0
    monkeypatch.setenv("EDGEWISE_PASSPHRASE", "falsch")
    code, _, err = edgewise("sign", path, "--key", key)
    assert (code, "can't be decrypted" in err, "falsch" in err) == (2, True, False)


def test_run_refuses_what_is_not_trusted(
    edgewise: Edgewise, release: Callable[[int], Path], model: Path, picture: Path, tmp_path: Path
) -> None:
    first, second, trusted, state = release(1), release(2), tmp_path / "trusted", tmp_path / "state.json"
    assert edgewise("run", second, picture, "--keys", trusted, "--state", state)[0] == 0
    assert json.loads(state.read_text()) == {"tiny": 2}
    code, _, err = edgewise("run", first, picture, "--keys", trusted, "--state", state)
    assert (code, "version 1 of tiny, and 2 or later" in err) == (2, True)
    assert edgewise("verify", first, "--keys", trusted, "--state", state)[0] == 2
    assert edgewise("run", first, picture, "--keys", trusted)[0] == 0
    assert edgewise("run", first, picture, "--keys", trusted, "--minimum-version", 2)[0] == 2
    assert edgewise("run", first, picture)[0] == 0

    unsigned = tmp_path / "unsigned.edgew"
    package.build(Graph.load(model), created="2026-01-01T00:00:00Z").save(unsigned)
    code, _, err = edgewise("run", unsigned, picture, "--keys", trusted)
    assert (code, "is not signed" in err) == (2, True)
    code, _, err = edgewise("run", model, picture, "--keys", trusted)
    assert (code, "nobody can sign" in err) == (2, True)
    for alone in (("--state", state), ("--minimum-version", 2)):
        code, _, err = edgewise("run", first, picture, *alone)
        assert (code, "give --keys too" in err) == (2, True)
    state.write_text("{")
    assert edgewise("run", second, picture, "--keys", trusted, "--state", state)[0] == 2


def test_a_version_is_noted_when_it_ran_and_not_before(
    edgewise: Edgewise, release: Callable[[int], Path], picture: Path, tmp_path: Path
) -> None:
    wrong, state = tmp_path / "wrong.npy", tmp_path / "state.json"
    np.save(wrong, np.zeros((3, 3), np.float32))
    assert edgewise("run", release(1), wrong, "--keys", tmp_path / "trusted", "--state", state)[0] == 2
    assert not state.exists()


def test_an_update_from_the_shell(edgewise: Edgewise, release: Callable[[int], Path], tmp_path: Path) -> None:
    old, new, trusted, given = release(1), release(2), tmp_path / "trusted", tmp_path / "u.edgewd"
    whole = new.read_bytes()
    code, out, _ = edgewise("diff", old, new, "-o", given)
    assert (code, "% of the new package" in out) == (0, True)
    assert edgewise("diff", old, new, "-o", tmp_path / "any.edgewd", "--no-reencode")[0] == 0
    for each in (given, tmp_path / "any.edgewd"):
        code, out, _ = edgewise("patch", old, each, "-o", tmp_path / "made.edgew")
        assert (code, "not checked (--keys)" in out) == (0, True)
        assert (tmp_path / "made.edgew").read_bytes() == whole
    state = tmp_path / "state.json"
    code, out, _ = edgewise("patch", old, given, "--keys", trusted, "--state", state)
    assert (code, "by a trusted key" in out) == (0, True)
    assert old.read_bytes() == whole
    assert json.loads(state.read_text()) == {"tiny": 2}
    code, _, err = edgewise("patch", old, given)
    assert (code, "for another package" in err) == (2, True)
    code, _, err = edgewise("diff", old, tmp_path / "none.edgew", "-o", given)
    assert (code, "does not exist" in err) == (2, True)


def test_an_update_to_an_older_version_is_refused_with_keys(edgewise: Edgewise, release: Callable[[int], Path], tmp_path: Path) -> None:
    new, old = release(2), release(1)
    before = new.read_bytes()
    assert edgewise("diff", new, old, "-o", tmp_path / "back.edgewd")[0] == 0
    code, _, err = edgewise("patch", new, tmp_path / "back.edgewd", "--keys", tmp_path / "trusted")
    assert (code, "leads back from version 2 to 1" in err) == (2, True)
    assert new.read_bytes() == before
