"""The bytes of audio files, sound and damaged."""

import io

import soundfile
from tiny_models import noise


CODECS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def encoded(codec: str, wave=None, rate: int = 16_000, **options) -> bytes:
    """The bytes of a file; by default half a second of noise."""
    container, subtype = CODECS[codec]
    buffer = io.BytesIO()
    wave = noise(0.5) if wave is None else wave
    soundfile.write(buffer, wave, rate, **{"format": container, "subtype": subtype} | options)
    return buffer.getvalue()


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
