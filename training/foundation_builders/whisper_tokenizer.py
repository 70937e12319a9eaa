"""Whisper's tokenizer, from the tiktoken rank files of the openai-whisper package."""

import base64
from pathlib import Path

from transformers import AddedToken, WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.packages import read_member


# The checkpoints built here know 99 languages; Cantonese, the 100th, came with large-v3.
LANGUAGE_CODES = list(LANGUAGES)[:99]

END_OF_TEXT = "<|endoftext|>"
# openai-whisper numbers these after the ranks, in this order, and the timestamps after them.
SPECIAL_TOKENS = [
    END_OF_TEXT,
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGE_CODES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
TIMESTAMPS = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]  # 0 to 30 seconds

BYTE_TO_CHARACTER = bytes_to_unicode()  # GPT-2's reversible alphabet


def whisper_tokenizer(sdist: Path, multilingual: bool, folder: Path) -> WhisperTokenizer:
    """The tokenizer of an openai/whisper-* checkpoint: the same ids, timestamps included.

    Args:
        sdist (`Path`): The openai-whisper package.
        multilingual (`bool`): Whether the checkpoint is multilingual; the `.en` ones have GPT-2's vocabulary.
        folder (`Path`): The checkpoint folder. It receives normalizer.json, the spelling map of the English
            normaliser, which `save_pretrained` does not write.
    """
    name = "multilingual" if multilingual else "gpt2"
    ranks = read_ranks(read_whisper_file(sdist, f"assets/{name}.tiktoken").decode())
    normalizer = folder / "normalizer.json"
    normalizer.write_bytes(read_whisper_file(sdist, "normalizers/english.json"))
    tokenizer = WhisperTokenizer(
        vocab={printable(token): rank for token, rank in ranks.items()},
        merges=[(printable(left), printable(right)) for left, right in merges_from_ranks(ranks)],
        normalizer_file=str(normalizer),
        pad_token=END_OF_TEXT,
        extra_special_tokens=SPECIAL_TOKENS[1:],
        model_max_length=1024,
    )
    tokenizer.add_tokens([AddedToken(stamp, normalized=False, special=False) for stamp in TIMESTAMPS])

    ids = tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS + TIMESTAMPS)
    if ids != list(range(len(ranks), len(ranks) + len(ids))):
        raise FoundationError("This transformers version gives Whisper's special tokens other ids than the original.")
    return tokenizer


def read_whisper_file(sdist: Path, name: str) -> bytes:
    """One file of the `whisper` module inside the openai-whisper package."""
    return read_member(sdist, f"{sdist.name.removesuffix('.tar.gz')}/whisper/{name}")


def read_ranks(text: str) -> dict[bytes, int]:
    """`{token: rank}` of a tiktoken file, whose lines read `<base64 of the token> <rank>`."""
    pairs = (line.split() for line in text.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def merges_from_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The BPE merges, in order, that a rank file implies: one for each token longer than a byte.

    Raises:
        FoundationError: If a token is not the merge of two earlier ones.
    """
    by_rank = sorted(ranks, key=ranks.__getitem__)
    return [_parents(token, ranks) for token in by_rank if len(token) > 1]


def printable(token: bytes) -> str:
    """A token in GPT-2's alphabet, where each byte is one printable character (a space is `Ġ`)."""
    return "".join(BYTE_TO_CHARACTER[byte] for byte in token)


def _parents(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair whose merge made this token: apply all earlier merges to its bytes, and two parts remain."""
    rank = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = zip(parts, parts[1:], strict=False)
        earliest, i = min((ranks.get(left + right, rank), i) for i, (left, right) in enumerate(pairs))
        if earliest >= rank:
            raise FoundationError(f"The rank file is broken: {token!r} is not the merge of two earlier tokens.")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    left, right = parts
    return left, right
