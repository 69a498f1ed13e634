"""Where the members of a zip archive lie, such as the arrays in an ``.npz`` file.

Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3 (zip64). The end of the archive says where its
central directory is, which has an entry for each member. Sizes are those of the central directory:
local headers may lack them. No byte is believed before it is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ...errors import DataError
from ...wording import listed, printable, short

END_BYTES = 22 + 20 + 56  # of the ends, without a comment: usual, zip64's locator, zip64's
LOCAL_BYTES = 30  # of a local header, without the name and what follows it

_MOST_COMMENT = 0xFFFF
_MOST_DIRECTORY = 64 << 20
_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_IS_ENCRYPTED, _IS_UTF8 = 1, 1 << 11
_UNKNOWN = 0xFFFFFFFF  # an extra field says it

Read = Callable[[int, int], bytes]  # bytes from one place to another; fewer at the end


class ZipMember(NamedTuple):
    """A member as the central directory describes it.

    Attributes:
        offset: Of its local header.
        method: 0: stored as it is.
        packed_bytes: As it is stored.
        size_bytes: Of what is in it.
        crc32: Of that.
        is_encrypted: And cannot be read without a password.
    """

    offset: int
    method: int
    packed_bytes: int
    size_bytes: int
    crc32: int
    is_encrypted: bool

    @property
    def is_deflated(self) -> bool:
        return self.method == _DEFLATED


def zip_members(path: str, size_bytes: int, read: Read, tail: bytes = b"") -> dict[str, ZipMember]:
    """The members of an archive by their names.

    Args:
        path: For errors.
        read: Reads from it.
        tail: Its last bytes, where they are at hand.

    Raises:
        DataError: It is no zip archive, is damaged, or was cut off.
    """
    begin, end = _directory(path, size_bytes, read, tail)
    at_hand = size_bytes - len(tail)
    directory = tail[begin - at_hand : end - at_hand] if begin >= at_hand else read(begin, end)
    if len(directory) != end - begin:
        _fail(path, "ends within its directory")
    members: dict[str, ZipMember] = {}
    at = 0
    while at < len(directory):
        name, member, at = _entry(path, directory, at)
        if name in members:
            _fail(path, f"has two members of the name {short(name)}")
        if member.offset + LOCAL_BYTES + member.packed_bytes > begin:
            _fail(path, f"its member {short(name)} reaches into the directory")
        members[name] = member
    return members


def refuse_unread(path: str, name: str, member: ZipMember, inflates: bool) -> None:
    """Raises DataError for a member that is encrypted; or compressed, where it is not inflated."""
    what = f"its member {short(name)}"
    if member.is_encrypted:
        _fail(path, f"{what} is encrypted; save it without a password")
    if member.method != _STORED and not (inflates and member.is_deflated):
        how = "is compressed" if member.method == _DEFLATED else f"has the method {member.method}"
        refuse_compressed(path, name, how)


def refuse_compressed(path: str, name: str, how: str) -> NoReturn:
    raise DataError(
        f"{printable(path)}: its member {short(name)} {how}: only members that are stored are read "
        "in place. Save the archive by numpy.savez, which stores them, not "
        "numpy.savez_compressed: numpy.savez(path, **numpy.load(path)). Or give "
        "compressed='read', which inflates each sample in Python"
    )


def local_header_bytes(locals_: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> Any:
    """Of local headers, behind which the data begin: int64 [m]; 0 where there is none.

    Args:
        locals_: The first bytes of each: uint8 [m, 30 or more].
        counts: How many of these there are: int64 [m].
    """
    is_local = (locals_[:, :4] == np.frombuffer(_LOCAL, np.uint8)).all(axis=1)
    name_and_extra = np.ascontiguousarray(locals_[:, 26:LOCAL_BYTES]).view("<u2")
    lengths = LOCAL_BYTES + name_and_extra.astype(np.int64).sum(axis=1)
    return np.where(is_local & (counts >= LOCAL_BYTES), lengths, 0)


def no_local_header(path: str, name: str) -> NoReturn:
    _fail(path, f"its member {short(name)} does not begin where the directory says")


def missing_member(path: str, name: str, members: dict[str, ZipMember]) -> NoReturn:
    known = listed([short(one.removesuffix(".npy")) for one in members]) or "none"
    raise DataError(
        f"{printable(path)}: has no array {short(name)}, only {known}; give fields= that every "
        "archive has"
    )


def _directory(path: str, size_bytes: int, read: Read, tail: bytes) -> tuple[int, int]:
    """Where it begins and ends."""
    for wanted in (END_BYTES, END_BYTES + _MOST_COMMENT):
        if len(tail) < min(wanted, size_bytes):
            tail = read(max(0, size_bytes - wanted), size_bytes)
        at = tail.rfind(_END)
        while at >= 0 and not _is_end(tail, at):
            at = tail.rfind(_END, 0, at)
        if at >= 0:
            break
    else:
        _fail(path, "is no zip archive, as .npz files are")
    end_at = size_bytes - len(tail) + at
    size, begin = struct.unpack_from("<II", tail, at + 12)
    disks, count = struct.unpack_from("<HH", tail, at + 4), tail[at + 10 : at + 12]
    has_more = _UNKNOWN in (size, begin) or count == b"\xff\xff"
    if has_more and tail[max(at - 20, 0) : at].startswith(_LOCATOR):
        (end_at,) = struct.unpack_from("<Q", tail, at - 12)
        size, begin = _end64(path, read(end_at, end_at + 56) if end_at < size_bytes else b"")
    elif disks != (0, 0):
        _fail(path, "is a part of an archive of several")
    if begin + size != end_at or size > _MOST_DIRECTORY:
        _fail(path, "its directory is not where its end says")
    return begin, end_at


def _is_end(tail: bytes, at: int) -> bool:
    """Whether nothing follows the end there but its comment."""
    comment = tail[at + 22 :]
    return at + 22 <= len(tail) and len(comment) == int.from_bytes(
        tail[at + 20 : at + 22], "little"
    )


def _end64(path: str, end: bytes) -> tuple[int, int]:
    if len(end) < 56 or not end.startswith(_END64):
        _fail(path, "its end for large archives is not where its locator says")
    size, begin = struct.unpack_from("<QQ", end, 40)
    return size, begin


def _entry(path: str, directory: bytes, at: int) -> tuple[str, ZipMember, int]:
    """The name and the member, and where the next entry begins."""
    if not directory.startswith(_ENTRY, at) or at + 46 > len(directory):
        _fail(path, "its directory is damaged")
    flags, method = struct.unpack_from("<HH", directory, at + 8)
    crc32, packed, size, name_bytes, extra_bytes, comment_bytes = struct.unpack_from(
        "<IIIHHH", directory, at + 16
    )
    (offset,) = struct.unpack_from("<I", directory, at + 42)
    begin = at + 46
    extra_at = begin + name_bytes
    end = extra_at + extra_bytes + comment_bytes
    if end > len(directory):
        _fail(path, "its directory is damaged")
    name = directory[begin:extra_at].decode("utf-8" if flags & _IS_UTF8 else "cp437", "replace")
    extra = directory[extra_at : extra_at + extra_bytes]
    size, packed, offset = _with_zip64(path, extra, [size, packed, offset])
    if method == _STORED and packed != size:
        _fail(path, f"its member {short(name)} has two sizes")
    is_encrypted = bool(flags & _IS_ENCRYPTED)
    return name, ZipMember(offset, method, packed, size, crc32, is_encrypted), end


def _with_zip64(path: str, extra: bytes, values: list[int]) -> list[int]:
    """Those that are unknown are in the extra field of the number 1, in this order."""
    if _UNKNOWN not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1:
            given = iter(struct.iter_unpack("<Q", extra[at : at + size // 8 * 8]))
            made = [next(given, (None,))[0] if value == _UNKNOWN else value for value in values]
            if None not in made and at + size <= len(extra):
                return [int(value) for value in made if value is not None]
        at += size
    _fail(path, "its directory is damaged: a size is missing")


def _fail(path: str, text: str) -> NoReturn:
    raise DataError(f"{printable(path)}: {text}; save or copy it again")
