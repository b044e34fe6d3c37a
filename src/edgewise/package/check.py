"""What a manifest must hold to before anything it names is read: names, places, sizes, dtypes, codings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from edgewise.errors import InvalidPackage
from edgewise.package.limits import Limits
from edgewise.package.manifest import (
    ALIGNMENT,
    BITS,
    MEMBER_CODINGS,
    TENSOR_CODINGS,
    Entry,
    Manifest,
    Member,
    Tensor,
    aligned,
    stored_bytes,
)

# Members are never written out by name; a reader that did would still stay inside its folder.
_MEMBER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")


def check(manifest: Manifest, what: str, limits: Limits) -> None:
    """Everything that can be said about a manifest without its members. Raises InvalidPackage."""
    members = {member.name: member for member in manifest.members}
    _unique([member.name for member in manifest.members], "member", what, limits.members)
    _unique([entry.name for entry in manifest.entries], "entry", what, limits.entries)
    if "main" not in {entry.name for entry in manifest.entries}:
        raise InvalidPackage(f'{what}: has no entry "main"; every package holds its model under that name')
    end = 0
    for member in manifest.members:
        if not _MEMBER_NAME.fullmatch(member.name) or len(member.name) > 128:
            raise InvalidPackage(
                f"{what}: member name {member.name[:160]!r} is not allowed: letters, digits, _ - . and single slashes inside"
            )
        if member.coding not in MEMBER_CODINGS:
            raise InvalidPackage(
                f"{what}: member {member.name} has the unknown coding {_short(member.coding)}; update edgewise, or pack it again"
            )
        if (member.coding == "raw") != (member.size is None):
            raise InvalidPackage(f"{what}: member {member.name} is {member.coding}, of the size {member.size}; only coded ones have a size")
        if member.offset != aligned(end):
            raise InvalidPackage(
                f"{what}: member {member.name} starts at {member.offset:,}, and {aligned(end):,} was expected: members follow each other, "
                f"{ALIGNMENT}-byte aligned, without overlap or gap"
            )
        end = member.offset + member.length
    used = {entry.member for entry in manifest.entries} | {tensor.member for entry in manifest.entries for tensor in entry.tensors}
    for member in manifest.members:
        if member.name not in used and member.decoded_bytes > limits.attached_bytes:
            raise InvalidPackage(
                f"{what}: member {member.name} unfolds to {member.decoded_bytes:,} bytes, over {limits.attached_bytes:,}; "
                "raise Limits.attached_bytes if you trust the file"
            )
    if sum(len(entry.tensors) for entry in manifest.entries) > limits.tensors:
        raise InvalidPackage(f"{what}: lists over {limits.tensors:,} tensors; raise Limits.tensors if you trust the file")
    for entry in manifest.entries:
        _check_entry(entry, members, what, limits)


def _check_entry(entry: Entry, members: dict[str, Member], what: str, limits: Limits) -> None:
    where = f"{what}: entry {_short(entry.name)}"
    if entry.member not in members:
        raise InvalidPackage(f"{where} is in the member {_short(entry.member)}, which isn't there")
    graph_bytes = max(members[entry.member].length, members[entry.member].decoded_bytes)
    if graph_bytes > limits.graph_bytes:
        raise InvalidPackage(
            f"{where} has a graph of {graph_bytes:,} bytes without its weights, over {limits.graph_bytes:,}; "
            "raise Limits.graph_bytes if you trust the file"
        )
    _unique([tensor.name for tensor in entry.tensors], "tensor", where, limits.tensors)
    total = 0
    for tensor in entry.tensors:
        _check_tensor(tensor, members, where, limits)
        total += stored_bytes(tensor.dtype, tensor.shape)
    if total + graph_bytes > limits.model_bytes:
        raise InvalidPackage(f"{where} unfolds to {total:,} bytes of weights, over {limits.model_bytes:,} (Limits.model_bytes)")
    stored = sum(tensor.length for tensor in entry.tensors)
    if not limits.allow(total, stored):
        raise InvalidPackage(
            f"{where} unfolds from {stored:,} to {total:,} bytes of weights, over {limits.expansion:,} times as many; "
            "raise Limits.expansion if you trust the file"
        )
    # Without this, a small file could name its one large tensor thousands of times.
    ranges = sorted((tensor.member, tensor.offset, tensor.length, tensor.name) for tensor in entry.tensors)
    for (member, offset, length, first), (next_member, next_offset, _, second) in itertools.pairwise(ranges):
        if member == next_member and next_offset < offset + length:
            raise InvalidPackage(f"{where}: the tensors {_short(first)} and {_short(second)} overlap in the file")


def _check_tensor(tensor: Tensor, members: dict[str, Member], where: str, limits: Limits) -> None:
    name = f"{where}: tensor {_short(tensor.name)}"
    if tensor.dtype not in BITS:
        raise InvalidPackage(f"{name} has the unknown dtype {_short(tensor.dtype)}; update edgewise, or pack it again")
    if tensor.coding not in TENSOR_CODINGS:
        raise InvalidPackage(f"{name} has the unknown coding {_short(tensor.coding)}; update edgewise, or pack it again")
    if len(tensor.shape) > limits.axes:
        raise InvalidPackage(f"{name} has {len(tensor.shape)} axes, over {limits.axes}")
    if tensor.member not in members:
        raise InvalidPackage(f"{name} is in the member {_short(tensor.member)}, which isn't there")
    if members[tensor.member].coding != "raw":
        raise InvalidPackage(f"{name} is in the member {_short(tensor.member)}, which is coded itself; tensors lie in raw ones")
    if tensor.offset + tensor.length > members[tensor.member].length:
        raise InvalidPackage(f"{name} ends at {tensor.offset + tensor.length:,} of a member of {members[tensor.member].length:,} bytes")
    expected = stored_bytes(tensor.dtype, tensor.shape)
    if tensor.coding == "raw" and tensor.length != expected:
        raise InvalidPackage(
            f"{name} has {tensor.length:,} bytes, and {tensor.dtype} {list(tensor.shape)} takes {_short(str(expected))}; "
            "the file is damaged or forged"
        )
    if tensor.coding == "coded" and not 0 < tensor.length < expected:
        raise InvalidPackage(
            f"{name} is coded in {tensor.length:,} bytes, and raw would take {_short(str(expected))}: coded ones are shorter, "
            "and not empty; the file is damaged or forged"
        )


def _unique(names: Sequence[str], what: str, where: str, limit: int) -> None:
    if len(names) > limit:
        raise InvalidPackage(f"{where}: {len(names):,} is over the limit of {limit:,} ({what}); raise it in Limits if you trust the file")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidPackage(f"{where}: the {what} name {_short(name)} stands there twice; the file is damaged or forged")
        seen.add(name)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
