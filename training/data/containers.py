"""Damage that a file's container tells of, and that libsndfile passes over.

libsndfile leaves out the pages of an Ogg file whose checksum is wrong, and takes a WAV file for as long as it happens to
be: such a recording can be read, but part of it is gone. FLAC checks itself as it is decoded.
"""

import struct
import zlib
from typing import BinaryIO


OGG_PAGE = struct.Struct(
    "<4sBBqIIIB"
)  # magic, version, flags, granule position, stream, page number, checksum, segments
FIRST_PAGE, LAST_PAGE = 2, 4  # flags
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# What programs that write to a pipe put for a length that they cannot know yet: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 (SoX).
UNKNOWN_WAV_LENGTH = 0x7FFFF000


def find_damage(stream: BinaryIO) -> str | None:
    """What is wrong with an audio file, as far as its container tells; `None` where it tells of nothing.

    Args:
        stream (`BinaryIO`): the file, at its start; it is left anywhere.
    """
    magic = stream.read(12)
    stream.seek(0)
    if magic.startswith(b"OggS"):
        return _find_ogg_damage(stream)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        return _find_wav_damage(stream)
    return None


def _find_ogg_damage(stream: BinaryIO) -> str | None:
    """A page that is cut short, whose checksum is wrong, or that is missing.

    A last page that is not marked as such is none: recorders of messages and streams leave the mark out.
    """
    position = 0
    next_numbers: dict[int, int] = {}  # of the streams that have not ended
    while head := stream.read(OGG_PAGE.size):
        if not head.startswith(b"OggS"):
            # What follows the last page is no audio: a tag, or padding.
            return f"damaged: no Ogg page at byte {position}" if next_numbers else None
        if len(head) < OGG_PAGE.size:
            return f"truncated: the Ogg page at byte {position} is cut short"
        _, _, flags, _, number_of_stream, number, checksum, num_segments = OGG_PAGE.unpack(head)
        segments = stream.read(num_segments)
        content = stream.read(sum(segments))
        if len(segments) < num_segments or len(content) < sum(segments):
            return f"truncated: the Ogg page at byte {position} is cut short"
        if checksum != ogg_checksum(head[:22] + bytes(4) + head[26:] + segments + content):
            return f"damaged: the Ogg page at byte {position} has a wrong checksum"
        if not flags & FIRST_PAGE and number != next_numbers.get(number_of_stream, number):
            return f"damaged: an Ogg page is missing before byte {position}"
        next_numbers[number_of_stream] = number + 1
        if flags & LAST_PAGE:
            del next_numbers[number_of_stream]
        position += len(head) + len(segments) + len(content)
    return None


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of a page whose checksum field is zero: zlib's polynomial with the bits the other way round, from 0."""
    reversed_checksum = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_checksum:032b}"[::-1], 2)


def _find_wav_damage(stream: BinaryIO) -> str | None:
    """Samples that are announced but not there."""
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        start = stream.tell()
        if name == b"data":
            there = stream.seek(0, 2) - start
            if there < length < UNKNOWN_WAV_LENGTH:
                return f"truncated: {there} of {length} bytes of samples are there"
            return None
        stream.seek(start + length + length % 2)  # chunks start at even bytes
    return None
