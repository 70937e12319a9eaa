"""Speaks lines in chunks, each by a process of its own, and remembers the finished ones."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm


if __package__:
    from .augmentation import augment
    from .clip_store import ClipStore
    from .mixing import SAMPLING_RATE
    from .tts_engines import ENGINES
    from .whole_files import write_whole
else:  # beside a script
    from augmentation import augment
    from clip_store import ClipStore
    from mixing import SAMPLING_RATE
    from tts_engines import ENGINES
    from whole_files import write_whole

SILENCE = 0.01  # peak amplitude below which nothing was said (nanotts: 0.003 for silence, 0.4 and more for speech)
# nanotts reads memory that it never cleared: on a recycled block its samples change with the calls before, and at
# times from run to run. A fixed threshold (bytes) makes glibc serve such a block from fresh pages, which are zero.
CHUNK_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "131072"}


class Chunk:
    """Consecutive lines that one process speaks. Its record is written last, and at once, and so marks it finished."""

    def __init__(self, store: ClipStore, calls: list[dict]):
        self.store, self.calls = store, calls
        self.record = store.records / f"{calls[0]['index']:06d}.json"
        self.digest = hashlib.sha256(json.dumps(calls).encode()).hexdigest()

    def durations(self) -> list[float | None] | None:
        """Seconds of each line, `None` for a silent one; `None` altogether if the chunk is still to be spoken."""
        if not self.record.is_file():
            return None
        record = json.loads(self.record.read_text())
        if record["digest"] != self.digest:
            return None
        lines = zip(self.calls, record["durations"], strict=True)
        done = all(self.store.has(call) for call, duration in lines if duration is not None)
        return record["durations"] if done else None

    def run(self) -> None:
        """Speaks in a fresh interpreter that loads this file alone, not the caller's modules: it starts fast."""
        noise_folder = self.store.noise_folder and str(self.store.noise_folder)
        job = json.dumps([str(self.store.folder), noise_folder, self.calls])
        command, environment = [sys.executable, __file__], os.environ | CHUNK_ENVIRONMENT
        process = subprocess.run(command, input=job.encode(), capture_output=True, env=environment)
        if process.returncode:
            lines = process.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise RuntimeError(f"exit code {process.returncode}, {lines[-1]}")

    def speak(self) -> None:
        """What the fresh interpreter does."""
        self.record.unlink(missing_ok=True)
        engines, durations = {}, []
        for call in self.calls:
            engine, _, voice = call["voice"].partition(":")
            path = self.store.loose(call["index"])
            try:
                if engine not in engines:
                    engines[engine] = ENGINES[engine]()
                wave = engines[engine].speak(call["text"], voice, call["speed"], call["pitch"])
                if not wave.size or np.abs(wave).max() < SILENCE:
                    path.unlink(missing_ok=True)
                    durations.append(None)
                    continue
                if engines[engine].sampling_rate != SAMPLING_RATE:
                    wave = soxr.resample(wave, engines[engine].sampling_rate, SAMPLING_RATE)
                wave = augment(wave, call, self.store.noise_folder)
            except Exception as error:
                raise RuntimeError(f"line {call['index'] + 1}: {error!r}") from error
            soundfile.write(path, wave, SAMPLING_RATE)
            durations.append(len(wave) / SAMPLING_RATE)
        write_whole(self.record, json.dumps({"digest": self.digest, "durations": durations}).encode())


def speak_missing(chunks: list[Chunk], source: str, num_sentences: int, num_workers: int) -> None:
    """Speaks the chunks, `num_workers` at a time; if one fails, the finished ones stay."""
    if not chunks:
        return
    (chunks[0].store.folder / "manifest.jsonl").unlink(missing_ok=True)  # of an earlier run: its audio changes now
    missing = sum(len(chunk.calls) for chunk in chunks)
    progress = tqdm(total=num_sentences, initial=num_sentences - missing, unit="sentence", desc="Speaking")
    with progress, ThreadPoolExecutor(num_workers) as pool:
        futures = {pool.submit(chunk.run): chunk for chunk in chunks}
        try:
            for future in as_completed(futures):
                calls = futures[future].calls
                try:
                    future.result()
                except RuntimeError as error:
                    where = f"{source}, lines {calls[0]['index'] + 1} to {calls[-1]['index'] + 1}"
                    raise RuntimeError(f"{where} could not be spoken ({error}): run again to resume.") from None
                progress.update(len(calls))
        except BaseException:  # an interrupt too: what runs may finish, what waits may not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    directory, noises, chunk_calls = json.load(sys.stdin)
    Chunk(ClipStore(Path(directory), noises), chunk_calls).speak()
