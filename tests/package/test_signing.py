"""Who signed what: keys on disk, signatures in files, and a policy that refuses everything else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewise import package
from edgewise.errors import InvalidInput, InvalidPackage, MissingExtra, NotTrusted
from edgewise.package import Package, Provenance, installed, signing

# RFC 8032, 7.1, TEST 1: its secret and public key.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def public(seed: int) -> signing.PublicKey:
    return signing.PublicKey(f"key{seed}", key(seed).public_key().public_bytes_raw())


@pytest.fixture
def release(make_graph: Callable[..., Any]) -> Callable[[int], Package]:
    """A version of one model."""

    def made(version: int) -> Package:
        return package.build(make_graph(), created="2026-01-01T00:00:00Z", version=version, provenance=Provenance("net"))

    return made


def test_what_is_signed(small: Package) -> None:
    """49 bytes, and nothing else, by the key of RFC 8032: made here with the library alone."""
    signed = signing.sign(small, Ed25519PrivateKey.from_private_bytes(SECRET))
    expected = Ed25519PrivateKey.from_private_bytes(SECRET).sign(b"edgewise package\0" + bytes.fromhex(small.content_id))
    assert signed.signature_bytes == expected
    assert signing.require(signed, signing.Trust((signing.PublicKey("rfc", PUBLIC),))).name == "rfc"


def test_signing_changes_the_signature_alone(small: Package, tmp_path: Path) -> None:
    small.save(tmp_path / "plain")
    signed = signing.sign(small, key(1))
    signed.save(tmp_path / "signed")
    before, after = ((tmp_path / name).read_bytes() for name in ("plain", "signed"))
    assert signed.content_id == small.content_id
    assert package.open(tmp_path / "signed").content_id == small.content_id
    assert before[:24] + before[32:64] + before[128:] == after[:24] + after[32:64] + after[128:]
    opened = package.open(tmp_path / "signed", trust=signing.Trust((public(1),)))
    assert opened.signature_bytes == after[64:128]
    assert (opened.describe()["signed"], small.describe()["signed"]) == (True, False)
    opened.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == after
    assert signing.sign(opened, key(2)).signature_bytes != after[64:128]


def test_a_package_of_the_minimal_profile_is_signed_the_same_way(small: Package, tmp_path: Path) -> None:
    path, trust = tmp_path / "a.edgew", signing.Trust((public(1),))
    small.save(path, profile="minimal")
    compact = package.open(path)
    with pytest.raises(NotTrusted, match="is not signed"):
        package.open(path, trust=trust)
    signing.sign(compact, key(1)).save(path)
    opened = package.open(path, trust=trust)
    assert (opened.content_id, opened.profile) == (compact.content_id, "minimal")
    assert opened.size_bytes == path.stat().st_size == compact.size_bytes + 64
    signing.sign(compact, key(2)).save(path)
    with pytest.raises(NotTrusted, match="none of the trusted keys"):
        package.open(path, trust=trust)


def test_every_flipped_bit_of_a_signed_file_is_refused_without_keys_too(small: Package, tmp_path: Path) -> None:
    path = tmp_path / "a.edgew"
    signing.sign(small, key(1)).save(path)
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for at in [*range(128), *range(128, len(data), 7)]:
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
                with pytest.raises(InvalidPackage):
                    package.open(path)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert package.open(path).signature_bytes


def test_a_signature_of_something_else_is_refused(small: Package, release: Callable[[int], Package]) -> None:
    trust = signing.Trust((public(1), public(2)))
    other = release(1)
    for forged in (
        replace(small, signature_bytes=signing.sign(other, key(1)).signature_bytes),
        replace(small, signature_bytes=key(1).sign(bytes.fromhex(small.content_id))),  # without the purpose
        replace(small, signature_bytes=bytes(64)),
        signing.sign(small, key(3)),
    ):
        with pytest.raises(NotTrusted, match=r"none of the trusted keys \(key1 \(.{16}\), key2"):
            signing.require(forged, trust)
    with pytest.raises(NotTrusted, match="is not signed; expected a signature by key1"):
        signing.require(small, trust)
    assert signing.require(signing.sign(small, key(2)), trust) == public(2)


def test_a_revoked_key_counts_no_more(small: Package) -> None:
    signed = signing.sign(small, key(1))
    with pytest.raises(NotTrusted, match=r"key1 \(.{16}\), which is revoked"):
        signing.require(signed, signing.Trust((public(1),), revoked=frozenset({public(1).id})))
    assert signing.require(signed, signing.Trust((public(1),), revoked=frozenset({public(2).id})))


def test_an_older_version_is_refused(release: Callable[[int], Package]) -> None:
    old, new = (signing.sign(release(version), key(1)) for version in (3, 4))
    for trust in (
        signing.Trust((public(1),), minimum_version=4),
        signing.Trust((public(1),), installed={"net": 4}),
        signing.Trust((public(1),), minimum_version=2, installed={"net": 4}),
    ):
        with pytest.raises(NotTrusted, match="is version 3 of net, and 4 or later"):
            signing.require(old, trust)
        signing.require(new, trust)
    signing.require(old, signing.Trust((public(1),), minimum_version=3, installed={"another": 9}))


def test_a_folder_of_keys(tmp_path: Path, small: Package) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    with pytest.raises(InvalidInput, match=r"holds no public keys \(\*.pub\)"):
        signing.trusted(folder)
    made = [signing.write_pair(tmp_path / f"{name}.key") for name in ("alice", "bob")]
    for name in ("alice", "bob"):
        (tmp_path / f"{name}.pub").rename(folder / f"{name}.pub")
    (folder / "notes.txt").write_text("not a key")
    trust = signing.trusted(folder, minimum_version=2, installed={"net": 7})
    assert trust.keys == tuple(made)
    assert (trust.minimum_version, trust.installed, trust.revoked) == (2, {"net": 7}, frozenset())
    assert signing.trusted(folder / "bob.pub").keys == (made[1],)

    (folder / "revoked").write_text(f"# left the company\n\n  {made[1].id.upper()} # bob\n")
    assert signing.trusted(folder).revoked == {made[1].id}
    (folder / "revoked").write_text(f"{made[1].id[:-1]}\n")
    with pytest.raises(InvalidInput, match="is no key id; give 16 hexadecimal digits"):
        signing.trusted(folder)
    (folder / "revoked").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="revoked keys"):
        signing.trusted(folder)


def test_keys_are_written_for_their_owner_and_never_over_others(tmp_path: Path, small: Package) -> None:
    path = tmp_path / "maker.key"
    made = signing.write_pair(path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    for taken in (path, tmp_path / "maker.other"):  # the latter's public key would be maker.pub too
        with pytest.raises(InvalidInput, match="can't be made again"):
            signing.write_pair(taken)
    assert path.read_bytes() == before
    assert not (tmp_path / "maker.other").exists()
    assert signing.write_pair(path, force=True) != made
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidInput, match="public key's suffix"):
        signing.write_pair(tmp_path / "maker.pub")
    with pytest.raises(InvalidInput, match="can't write"):
        signing.write_pair(tmp_path / "none" / "maker.key")
    # What others wrote in the standard forms is read, and what we wrote, by others.
    loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(loaded, Ed25519PrivateKey)
    assert signing.public_key(tmp_path / "maker.pub").data == loaded.public_key().public_bytes_raw()


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    made = signing.write_pair(tmp_path / "maker.key", passphrase="geheim")
    assert signing.encrypted(tmp_path / "maker.key")
    assert signing.private_key(tmp_path / "maker.key", "geheim").public_key().public_bytes_raw() == made.data
    with pytest.raises(InvalidInput, match="is encrypted"):
        signing.private_key(tmp_path / "maker.key")
    with pytest.raises(InvalidInput, match="can't be decrypted"):
        signing.private_key(tmp_path / "maker.key", "falsch")


def test_files_that_are_no_keys(tmp_path: Path) -> None:
    signing.write_pair(tmp_path / "maker.key")
    with pytest.raises(InvalidInput, match="is a private key; give its public one"):
        signing.public_key(tmp_path / "maker.key")
    with pytest.raises(InvalidInput, match="is no private key"):
        signing.private_key(tmp_path / "maker.pub")
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(InvalidInput, match="is no public key in PEM form"):
        signing.public_key(tmp_path / "text.pub")
    (tmp_path / "large.pub").write_bytes(b"-" * 100_000)
    with pytest.raises(InvalidInput, match="too large"):
        signing.public_key(tmp_path / "large.pub")
    with pytest.raises(InvalidInput, match="can't read the key"):
        signing.public_key(tmp_path / "none.pub")
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "other.pub").write_bytes(pem)
    with pytest.raises(InvalidInput, match="another kind than Ed25519"):
        signing.public_key(tmp_path / "other.pub")
    private = other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "other.key").write_bytes(private)
    with pytest.raises(InvalidInput, match="another kind than Ed25519"):
        signing.private_key(tmp_path / "other.key")


def test_versions_that_were_in_use_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert installed.read(path) == {}
    installed.keep(path, "net", 3)
    installed.keep(path, "other", 1)
    installed.keep(path, "net", 2)  # a lower one changes nothing
    assert installed.read(path) == {"net": 3, "other": 1}
    for damage in (b"", b"{", b'{"net":"3"}', b'{"net":3.5}', b"[]", b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(InvalidInput, match="which versions were in use"):
            installed.read(path)
        with pytest.raises(InvalidInput):
            installed.keep(path, "net", 9)
        assert path.read_bytes() == damage
    with pytest.raises(InvalidInput, match="can't write into"):
        installed.keep(tmp_path / "none" / "state.json", "net", 1)


def test_of_many_who_note_versions_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    writers = [threading.Thread(target=installed.keep, args=(path, f"net{i}", i)) for i in range(1, 17)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert installed.read(path) == {f"net{i}": i for i in range(1, 17)}


def test_cryptography_is_loaded_where_a_key_is_used_and_not_before() -> None:
    code = (
        "import sys, edgewise.package, edgewise.package.update, edgewise.cli.run, edgewise.cli.patch; print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_library_nothing_signed_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    uses: list[Callable[[], Any]] = [
        lambda: signing.write_pair(tmp_path / "maker.key"),
        lambda: signing.public_key(tmp_path / "maker.pub"),
        lambda: signing.private_key(tmp_path / "maker.key"),
        lambda: signing.signer(bytes(32), bytes(64), ()),
    ]
    for use in uses:
        with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[keys\]'"):
            use()
