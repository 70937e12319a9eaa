"""How fast each installed timbre speaks: seconds of audio a second of one core.

    python training/data/benchmark_tts.py [--sentences 128] [--repeats 3]

Times the whole of `synthesize.py`: starting a process a chunk, speaking, resampling, writing FLAC. Prints the median of
the repeats, by the processor time of all processes, so that other work on the machine matters little.
"""

import argparse
import json
import logging
import resource
import statistics
import tempfile
from pathlib import Path


if __package__:
    from .synthesize import synthesize
    from .tts_engines import ENGINES, VOICES
    from .voice_pool import group_timbres
else:  # run as a script
    from synthesize import synthesize
    from tts_engines import ENGINES, VOICES
    from voice_pool import group_timbres

ROOMS = ("kitchen", "bedroom", "bathroom", "garage", "office", "hallway", "garden", "cellar")
TEXT = "It is quite late now, please set an alarm for {} and turn off all of the lights in the {}."


def speed_of(voice: str, num_sentences: int) -> float:
    """Seconds of audio a second of processor time."""
    sentences = [{"text": TEXT.format(5 + i % 7, ROOMS[i % len(ROOMS)])} for i in range(num_sentences)]
    with tempfile.TemporaryDirectory() as folder:
        before = _processor_seconds()
        manifest = synthesize(sentences, folder, voices=[voice], num_workers=1)
        spent = _processor_seconds() - before
        rows = [json.loads(line) for line in Path(manifest).read_text(encoding="utf-8").splitlines()]
    return sum(row["duration"] for row in rows) / spent


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=128, help="sentences in a run (default: 128)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each voice (default: 3)")
    options = parser.parse_args()
    logging.disable()
    for timbre, voices in group_timbres(voice for voice in VOICES.values() if ENGINES[voice.engine].version()).items():
        speeds = [speed_of(voices[0].name, options.sentences) for _ in range(options.repeats)]
        print(f"{timbre:20} {statistics.median(speeds):6.0f} x real time", flush=True)


if __name__ == "__main__":
    main()
