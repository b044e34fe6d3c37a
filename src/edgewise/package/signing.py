"""Who made a package, and whether this device may use it: Ed25519 (RFC 8032) over the content id, keys in PEM files, and a policy.

Signed are 49 bytes: `PURPOSE`, so that no signature made for something else counts here, and the content id, which names every byte of the
package. A key's id is the beginning of the SHA-256 of its 32 public bytes. `cryptography` (the extra `keys`) is imported where a key is
used, and not before: who can't check a signature uses nothing that has to be signed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise import registry
from edgewise.errors import InvalidInput, NotTrusted
from edgewise.package import atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgewise.package.package import Package

PURPOSE = b"edgewise package\0"
KEY_ID_DIGITS = 16
REVOKED = "revoked"
_KEY_BYTES_MOST = 1 << 14  # of a file with a key: PEM of Ed25519 takes some hundred


@dataclass(frozen=True)
class PublicKey:
    """name: what people call it: its file, without the suffix."""

    name: str
    data: bytes

    @property
    def id(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:KEY_ID_DIGITS]

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


@dataclass(frozen=True)
class Trust:
    """What may be used here. revoked: ids of keys that count no more. minimum_version: of any model; installed: of each model, by its name.

    A version counts only because it is signed: what a trusted key signed once stays signed, and is refused when something newer was here.
    """

    keys: tuple[PublicKey, ...]
    revoked: frozenset[str] = frozenset()
    minimum_version: int = 1
    installed: Mapping[str, int] = field(default_factory=dict)


def signer(content_id: bytes, signature: bytes, keys: tuple[PublicKey, ...]) -> PublicKey | None:
    """The key of `keys` that made `signature` (64 bytes) of a content id (32 bytes); None when none did."""
    registry.need("cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key.data).verify(signature, PURPOSE + content_id)
        except InvalidSignature:
            continue
        return key
    return None


def require(package: Package, trust: Trust) -> PublicKey:
    """The key that signed `package`, which `trust` allows. Raises NotTrusted."""
    what, version, model = package.source, package.manifest.version, package.manifest.provenance.model
    if not package.signature_bytes:
        raise NotTrusted(f"{what} is not signed; expected a signature by {_named(trust.keys)}: edgewise sign makes one")
    key = signer(bytes.fromhex(package.content_id), package.signature_bytes, trust.keys)
    if key is None:
        raise NotTrusted(
            f"{what} is signed by none of the trusted keys ({_named(trust.keys)}), or its signature was altered; "
            "get it from its maker, or add the maker's public key"
        )
    if key.id in trust.revoked:
        raise NotTrusted(f"{what} is signed by {key}, which is revoked; get one that was signed by another key")
    lowest = max(trust.minimum_version, trust.installed.get(model, 1))
    if version < lowest:
        raise NotTrusted(f"{what} is version {version} of {model or 'its model'}, and {lowest} or later is asked for here; get a newer one")
    return key


def sign(package: Package, key: Ed25519PrivateKey) -> Package:
    """`package` with a signature by `key`, in the place of any before. Its content id stays."""
    return replace(package, signature_bytes=key.sign(PURPOSE + bytes.fromhex(package.content_id)))


def trusted(path: str | os.PathLike[str], *, minimum_version: int = 1, installed: Mapping[str, int] | None = None) -> Trust:
    """The policy of a file with a public key, or of a folder: every `*.pub` in it counts, but for ids listed in its file `revoked`.

    Raises InvalidInput for a folder without keys, and for anything in it that can't be read: an unreadable list of revoked keys revokes
    nothing.
    """
    place = Path(path)
    files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
    if not files:
        raise InvalidInput(f"{place} holds no public keys (*.pub); put the makers' there: edgewise keygen makes a pair")
    revoked = place / REVOKED
    ids = _revoked(revoked) if place.is_dir() and revoked.exists() else frozenset()
    return Trust(tuple(public_key(file) for file in files), ids, minimum_version, dict(installed or {}))


def public_key(path: Path) -> PublicKey:
    """Read a PEM file (SubjectPublicKeyInfo). Raises InvalidInput."""
    registry.need("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise InvalidInput(f"{path} is a private key; give its public one (.pub), and keep the private one off devices")
    try:
        found = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path} is no public key in PEM form; give the .pub file that edgewise keygen wrote") from error
    if not isinstance(found, Ed25519PublicKey):
        raise InvalidInput(f"{path} is a key of another kind than Ed25519; make one with edgewise keygen")
    return PublicKey(path.stem, found.public_bytes_raw())


def private_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Read a PEM file (PKCS #8), encrypted or not. Raises InvalidInput."""
    registry.need("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read(path)
    encrypted = b"ENCRYPTED" in data
    if encrypted and not passphrase:
        raise InvalidInput(f"{path} is encrypted; give its passphrase")
    try:
        found = serialization.load_pem_private_key(data, passphrase.encode() if encrypted and passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "can't be decrypted with this passphrase" if encrypted else "is no private key in PEM form"
        raise InvalidInput(f"{path} {why}; give the file that edgewise keygen wrote") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is a key of another kind than Ed25519; make one with edgewise keygen")
    return found


def encrypted(path: Path) -> bool:
    """Whether a passphrase is needed to read the private key."""
    return b"ENCRYPTED" in _read(path)


def write_pair(path: Path, *, passphrase: str | None = None, force: bool = False) -> PublicKey:
    """Make a pair of keys: the private one at `path`, for its owner's eyes alone, the public one beside it, as `.pub`.

    passphrase: encrypts the private one. Raises InvalidInput where a file is there already, unless `force`.
    """
    registry.need("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_suffix(".pub")
    if public == path:
        raise InvalidInput(
            f"{path}: .pub is the public key's suffix; give the private one another, such as {path.with_suffix('.key').name}"
        )
    key = Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    public_pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not force:
        if public.exists():
            raise InvalidInput(_there(public))
        _claim(path)
    atomic.write_bytes(path, pem, mode=0o600)
    atomic.write_bytes(public, public_pem)
    return PublicKey(public.stem, key.public_key().public_bytes_raw())


def _claim(path: Path) -> None:
    """Take the name, which nobody may have: of two that make keys at once, one is refused."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise InvalidInput(_there(path)) from error
    except OSError as error:
        raise InvalidInput(f"can't write {path}: {error.strerror}; does its folder exist, and is it yours?") from error


def _there(path: Path) -> str:
    return f"{path} exists, and a key that is lost can't be made again; give another name, or --force to overwrite it"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_KEY_BYTES_MOST + 1)
    except OSError as error:
        raise InvalidInput(f"can't read the key {path}: {error.strerror or error}") from error
    if len(data) > _KEY_BYTES_MOST:
        raise InvalidInput(f"{path} is too large for a key; give a .pub or .key file that edgewise keygen wrote")
    return data


def _revoked(path: Path) -> frozenset[str]:
    """A key id a line; "#" begins a remark."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"can't read {path}, which lists revoked keys: {error}; mend it, or take it away") from error
    ids = {line.partition("#")[0].strip().lower() for line in lines} - {""}
    for each in sorted(ids):
        if not re.fullmatch(f"[0-9a-f]{{{KEY_ID_DIGITS}}}", each):
            raise InvalidInput(
                f"{path}: {each[:80]!r} is no key id; give {KEY_ID_DIGITS} hexadecimal digits, as edgewise verify shows them"
            )
    return frozenset(ids)


def _named(keys: tuple[PublicKey, ...]) -> str:
    shown = ", ".join(str(key) for key in keys[:4])
    return shown + (f" and {len(keys) - 4} others" if len(keys) > 4 else "")
