"""How fast recordings become the model's input: decoding, resampling and features, on one core.

    OMP_NUM_THREADS=1 python training/data/benchmark_loader.py [--seconds S] [--repeats N]

It makes recordings of speech-like noise as flac, ogg and wav at several rates, and prints for each how many seconds of
audio a core handles in a second: a plain soundfile loop, which only decodes; the Audio path of `datasets`, where torchcodec
is installed; and this project's loader, for an encoder of waveforms and one of mel frames. Each figure is the median of
several runs; the ratios compare the loader with the plain loop.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, models
from transformers import (
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

import speechverse
from speechverse.modeling_speechverse.audio_encoders import audio_encoder_family
from speechverse.training.data.inspection import inspect_recording
from speechverse.training.data.report import format_table


FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
RATES = (8_000, 16_000, 44_100, 48_000)  # Hz
OPUS_RATES = (8_000, 16_000, 48_000)  # it knows no others
CLIP_SECONDS = 8.0


def build_processor(config, feature_extractor) -> speechverse.SpeechVerseProcessor:
    """A processor without a model: for recordings alone."""
    family = audio_encoder_family(config)
    vocabulary = models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>")
    return speechverse.SpeechVerseProcessor(
        feature_extractor,
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), pad_token="<pad>", unk_token="<unk>"),
        encoder_convolutions=family.convolutions,
        projector_convolutions=[(3, 2, 1), (3, 2, 1)],
        max_audio_steps=family.max_input_length,
    )


def write_recordings(folder: Path, ending: str, rate: int, seconds: float) -> list[str]:
    """Mono files of 8 s, together as long as asked: noise whose loudness comes and goes as in speech."""
    container, subtype = FORMATS[ending]
    draw = np.random.default_rng(rate)
    num_samples = round(CLIP_SECONDS * rate)
    loudness = 0.1 * np.abs(np.sin(np.linspace(0, 4 * np.pi * CLIP_SECONDS, num_samples)))  # four syllables a second
    files = []
    for index in range(max(1, round(seconds / CLIP_SECONDS))):
        # Energy falls with frequency, as a codec expects.
        wave = np.convolve(draw.standard_normal(num_samples + 15), np.ones(16) / 4, mode="valid") * loudness
        files.append(str(folder / f"{index}-{rate}.{ending}"))
        soundfile.write(files[-1], wave, rate, format=container, subtype=subtype)
    return files


def audio_seconds_per_second(compared: dict[str, Callable], files: list[str], repeats: int) -> dict[str, float]:
    """Median over runs of how many seconds of audio one second of a core's time handles, by name.

    The runs take turns, so that a machine that is busy for a while slows all of them.
    """
    speeds = {name: [] for name in compared}
    for run in range(repeats + 1):
        for name, handle in compared.items():
            start = time.process_time()
            for file in files:
                handle(file)
            if run:  # the first only warms up
                speeds[name].append(len(files) * CLIP_SECONDS / (time.process_time() - start))
    return {name: statistics.median(measured) for name, measured in speeds.items()}


def loaders() -> dict[str, Callable]:
    """What is compared, by name; the plain loop first."""
    waveform = build_processor(WavLMConfig(), Wav2Vec2FeatureExtractor())
    mel = build_processor(WhisperConfig(), WhisperFeatureExtractor())
    compared = {"soundfile loop": lambda file: soundfile.read(file, dtype="float32")}
    if importlib.util.find_spec("torchcodec"):
        import datasets

        feature = datasets.Audio(sampling_rate=16_000)
        compared["datasets Audio"] = lambda file: feature.decode_example(
            {"path": file, "bytes": None}
        ).get_all_samples()
    return compared | {
        "check": inspect_recording,
        "waveform": waveform.extract_features,
        "mel": mel.extract_features,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="of audio in each case (default: 240)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is taken (default: 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compared = loaders()
    plain, *others = compared
    if "datasets Audio" not in compared:
        print("torchcodec is not installed: `datasets` cannot decode audio, and is left out.\n")
    rows = []
    for ending in FORMATS:
        for rate in OPUS_RATES if ending == "opus" else RATES:
            with tempfile.TemporaryDirectory() as folder:
                files = write_recordings(Path(folder), ending, rate, options.seconds)
                speeds = audio_seconds_per_second(compared, files, options.repeats)
            ratios = [f"{speeds[name] / speeds[plain]:.2f}" for name in others]
            rows.append([f"{ending} {rate / 1000:g} kHz", *(f"{speeds[name]:.0f}" for name in compared), *ratios])
    print(
        "Seconds of audio a second and core; then the same as a share of the plain soundfile loop, which only decodes.\n"
    )
    print(format_table(["files", *compared, *(f"{name} / loop" for name in others)], rows))


if __name__ == "__main__":
    main()
