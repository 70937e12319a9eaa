"""Whisper's generation config, rebuilt from the openai-whisper package."""

import ast
import base64
import gzip
import re
from pathlib import Path

import numpy as np
from transformers import GenerationConfig, WhisperTokenizer

from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.whisper_tokenizer import END_OF_TEXT, LANGUAGE_CODES, read_whisper_file


TASK_TOKENS = ["startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech"]


def whisper_generation_config(
    tokenizer: WhisperTokenizer, sdist: Path, size: str, layers: int, heads: int, multilingual: bool
) -> GenerationConfig:
    """The generation config of an openai/whisper-* checkpoint.

    Args:
        tokenizer (`WhisperTokenizer`): The checkpoint's tokenizer.
        sdist (`Path`): The openai-whisper package.
        size (`str`): Name of the checkpoint there, e.g. `"tiny.en"`.
        layers (`int`): Decoder layers.
        heads (`int`): Attention heads of a decoder layer.
        multilingual (`bool`): Whether the checkpoint knows languages and tasks.
    """
    ids = tokenizer.convert_tokens_to_ids
    end = ids(END_OF_TEXT)
    space = tokenizer(" ", add_special_tokens=False).input_ids[0]
    config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        begin_suppress_tokens=[space, end],
        suppress_tokens=suppressed_tokens(tokenizer, sdist),
        max_length=448,
        is_multilingual=multilingual,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        return_timestamps=False,
        max_initial_timestamp_index=50,
        alignment_heads=alignment_heads(sdist, size, layers, heads),
    )
    if multilingual:
        config.lang_to_id = {f"<|{code}|>": ids(f"<|{code}|>") for code in LANGUAGE_CODES}
        config.task_to_id = {task: ids(f"<|{task}|>") for task in ("transcribe", "translate")}
        # The original has forced_decoder_ids [[1, None], [2, transcribe]], now deprecated. Without either, generate()
        # puts no task token into the prompt and the model babbles. The language is detected unless it is named.
        config.task = "transcribe"
    return config


def suppressed_tokens(tokenizer: WhisperTokenizer, sdist: Path) -> list[int]:
    """Ids that must not be generated: symbols that are not speech, and tokens that belong to the prompt."""
    symbols, notes = non_speech_symbols(read_whisper_file(sdist, "tokenizer.py").decode())

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    suppressed = {encode(" -")[0], encode(" '")[0]}  # allowed inside a word, not before one
    for symbol in symbols + notes:
        for ids in (encode(symbol), encode(" " + symbol)):
            # A note is several bytes in one token or more; its first token is never speech.
            if len(ids) == 1 or symbol in notes:
                suppressed.add(ids[0])
    suppressed.update(tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in TASK_TOKENS]))
    return sorted(suppressed)


def non_speech_symbols(source: str) -> tuple[list[str], list[str]]:
    """The symbols, and the musical notes, that openai-whisper keeps from being generated.

    Args:
        source (`str`): Its `tokenizer.py`, where `non_speech_tokens` lists single characters in one string, longer
            symbols between spaces in a second, and notes in a third.

    Raises:
        FoundationError: If the package does not list them so.
    """
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    body = next((node.body for node in functions if node.name == "non_speech_tokens"), [])
    strings = [
        node.value
        for statement in body[1:4]
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    if len(strings) != 3:
        raise FoundationError(
            "The openai-whisper package does not list its non-speech symbols where they are expected."
        )
    characters, words, notes = strings
    return [*characters, *words.split()], [*notes]


def alignment_heads(sdist: Path, size: str, layers: int, heads: int) -> list[list[int]]:
    """`[layer, head]` of every attention head that follows the audio; word timestamps are read off these.

    openai-whisper keeps them in its source code as a gzipped boolean map `(layers, heads)` in base 85.
    """
    code = read_whisper_file(sdist, "__init__.py").decode().split("_ALIGNMENT_HEADS")[1]
    dump = re.search(rf'"{re.escape(size)}": b"(.*?)",', code)
    if dump is None:
        raise FoundationError(f"The openai-whisper package has no alignment heads for {size!r}.")
    followed = np.frombuffer(gzip.decompress(base64.b85decode(dump[1])), dtype=bool).reshape(layers, heads)
    return np.argwhere(followed).tolist()
