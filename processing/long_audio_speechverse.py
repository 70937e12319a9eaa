"""Hours of audio in bounded memory: read as a stream, cut where nobody speaks or into windows, and joined as text."""

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .audio_speechverse import (
    audio_name,
    check_finite,
    check_length,
    check_rates,
    decoding,
    find_samples,
    open_file,
    resample_blocks,
    to_mono_float,
)


BLOCK_SECONDS = 10  # what is read at a time

FRAME = 512  # samples that Silero VAD judges at a time, at its own rate
FRAME_RATE = 16_000  # Hz
SPEECH_OFF = 0.15  # once on, speech goes on until its probability has fallen this much below the threshold
MIN_SPEECH_FRAMES = 3  # between two long silences: 0.1 s in all, less than any word; clicks and knocks have that much

CUT_TAIL = 0.25  # part of a chunk, at its end, in which speech without a pause may be cut
LEVEL_FRAMES = 5  # its level is averaged over these, 0.16 s: between two words, not within one

# Silero VAD misses most speech below -40 dBFS or so. Amplifying noise this much does not make it speech.
TARGET_PEAK = 0.3
MAX_GAIN = 30.0
PEAK_HALF_LIFE = 10.0  # s: a quiet speaker may follow a loud one


@dataclass
class AudioChunk:
    """A stretch of a recording.

    Args:
        array (`np.ndarray` of shape `(samples,)`): float32, mono.
        start, end (`float`): where it lies in the recording, in seconds.
    """

    array: np.ndarray
    start: float
    end: float


def stream_audio(source, target_rate: int, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
    """Reads a recording as [`load_audio`] does, block by block.

    A file, be it a path, bytes or the download of a URL, is decoded and resampled as it is asked for: memory does not
    grow with its length. An array, a list or a torchcodec decoder is held whole.

    Args:
        source, target_rate, sampling_rate: as of [`load_audio`].

    Returns:
        an iterator of consecutive arrays of shape `(samples,)`, float32, some seconds each; joined, they are what
        [`load_audio`] returns.

    Raises:
        FileNotFoundError: if the path is not there.
        ValueError: if the source is not audio or has no rate; while iterating, if it is empty, shorter than 0.1 s, or
            holds NaN or infinity.
    """
    name = audio_name(source)
    samples, rate = find_samples(source, name, sampling_rate)
    if rate is None:
        file = open_file(samples, name)
        rate = file.samplerate
        check_rates(rate, target_rate, name)
        blocks = _blocks_of_file(file, name)
    else:
        check_rates(rate, target_rate, name)
        blocks = _blocks_of_array(samples, math.ceil(BLOCK_SECONDS * rate))
    return resample_blocks(_checked(blocks, rate, name), rate, target_rate)


def _blocks_of_file(file, name: str) -> Iterator[np.ndarray]:
    with file:
        while True:
            with decoding(name):
                block = file.read(BLOCK_SECONDS * file.samplerate, dtype="float32", always_2d=True)
            if not len(block):
                return
            yield block


def _blocks_of_array(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _checked(blocks: Iterable[np.ndarray], rate: float, name: str) -> Iterator[np.ndarray]:
    """Mono float32 blocks; every one but the last is longer than the shortest recording that is taken."""
    number = -1
    for number, block in enumerate(blocks):
        if number == 0:
            check_length(len(block), rate, name)
        wave = to_mono_float(block, name)
        where = f"{name}, {number * BLOCK_SECONDS} s in," if number else name
        check_finite(wave, where)
        yield wave
    if number < 0:
        check_length(0, rate, name)


class SileroDetector:
    """Speech probability of consecutive frames, by Silero VAD (MIT; its weights come with the package, 2 MB).

    It remembers what it heard: take a new one for every recording. Quiet frames are amplified before they are judged,
    by what the loudest of the last seconds needs.

    Raises:
        ImportError: if `silero-vad` is not installed.
    """

    def __init__(self):
        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ImportError as error:
            raise ImportError(
                "Finding the pauses in a recording needs Silero VAD: `pip install silero-vad`. Windows that overlap "
                "(overlapping_windows) need nothing."
            ) from error
        finally:
            torch.set_num_threads(threads)  # importing silero_vad leaves the whole process with one
        self._model = load_silero_vad()
        self._peak = 0.0
        self._decay = 0.5 ** (FRAME / FRAME_RATE / PEAK_HALF_LIFE)

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> float:
        """Probability, 0 to 1, that the next 512 samples at 16 kHz hold speech."""
        self._peak = max(self._peak * self._decay, float(np.abs(frame).max()))
        gain = min(max(TARGET_PEAK / self._peak, 1.0), MAX_GAIN) if self._peak else 1.0
        return self._model(torch.from_numpy(frame * np.float32(gain)), FRAME_RATE).item()


def cut_at_silences(
    blocks: Iterable[np.ndarray],
    rate: int,
    max_seconds: float,
    *,
    pause_seconds: float = 0.3,
    skip_seconds: float = 2.0,
    padding_seconds: float = 0.5,
    threshold: float = 0.3,
    detector: Callable[[np.ndarray], float] | None = None,
) -> "SpeechChunks":
    """Cuts a recording where nobody speaks, into chunks that a model can take.

    Every sample that may hold speech is in exactly one chunk:
    - Speech that fits is one chunk, with the pauses in it. What does not fit is cut in the middle of a pause: the
      longest one of the chunk's second half, since it is likely to end a sentence, or else the last one before it.
    - Speech that goes on for `max_seconds` without a pause is cut at its quietest place in the last quarter of the
      chunk. This may be within a word; where that is common, [`overlapping_windows`] lose less.
    - A silence of `skip_seconds` or more ends a chunk and is left out, but for `padding_seconds` next to the speech. So
      is one that holds less than 0.1 s of what may be speech, such as a knock. See `skipped` for what was left out.

    At most `max_seconds + skip_seconds` and one block are held in memory.

    ```python
    >>> chunks = cut_at_silences(stream_audio("lecture.flac", 16_000), 16_000, max_seconds=30)
    >>> for chunk in chunks:
    ...     print(chunk.start, chunk.end, transcribe(chunk.array))
    >>> chunks.skipped  # no speech was found in
    [(0.0, 3.2), (1805.4, 1893.0)]
    ```

    Args:
        blocks: consecutive arrays of shape `(samples,)`, float32, of any lengths, as of [`stream_audio`].
        rate (`int`): their rate, Hz. Silence is looked for at 16 kHz.
        max_seconds (`float`): longest chunk, in seconds.
        pause_seconds (`float`, *optional*, defaults to 0.3): shortest pause that is cut in, in seconds. The stops
            within words are shorter.
        skip_seconds (`float`, *optional*, defaults to 2.0): shortest silence that is left out, in seconds.
        padding_seconds (`float`, *optional*, defaults to 0.5): what is kept of it before and after speech, in seconds;
            less only at the end of a chunk that would get longer than `max_seconds`.
        threshold (`float`, *optional*, defaults to 0.3): probability from which a frame is taken for speech. It is low,
            because hearing noise out costs less than losing words.
        detector (`Callable`, *optional*, defaults to a [`SileroDetector`]): says how probable speech is in each frame.

    Returns:
        [`SpeechChunks`], an iterator of [`AudioChunk`].

    Raises:
        ImportError: if `silero-vad` is not installed and no detector is given.
        ValueError: if the durations do not go together.
    """
    if not 0 < pause_seconds <= skip_seconds:
        raise ValueError(
            f"pause_seconds is {pause_seconds}; it must be above 0 and at most skip_seconds, {skip_seconds}."
        )
    if not pause_seconds / 2 <= padding_seconds <= skip_seconds / 2:
        raise ValueError(
            f"padding_seconds is {padding_seconds}; it must be from half of pause_seconds, {pause_seconds / 2}, to half "
            f"of skip_seconds, {skip_seconds / 2}."
        )
    if not max(1, 2 * skip_seconds) <= max_seconds < float("inf"):
        raise ValueError(
            f"max_seconds is {max_seconds}; it must be at least 1 and twice skip_seconds, {2 * skip_seconds}."
        )
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; a probability must be above 0 and below 1.")
    check_rates(rate, FRAME_RATE, "the recording")
    return SpeechChunks(
        blocks,
        rate,
        longest=math.floor(max_seconds * rate),
        pause=math.ceil(pause_seconds * rate),
        skip=math.ceil(skip_seconds * rate),
        padding=math.floor(padding_seconds * rate),
        threshold=threshold,
        detector=detector or SileroDetector(),
    )


@dataclass
class _Frame:
    """What is known of a stretch of samples: whether it may hold speech, and how loud it is (mean square)."""

    start: int
    end: int
    is_speech: bool
    level: float


class SpeechChunks(Iterator[AudioChunk]):
    """What [`cut_at_silences`] returns: the chunks of a recording in their order, none of which share a sample.

    Attributes:
        skipped (`list[tuple[float, float]]`): start and end, in seconds, of the silences that are in no chunk; complete
            up to the latest chunk, and to the recording's end once there are no more. Chunks and silences together
            are the whole recording.
        seconds (`float`): how much of the recording has been read.
    """

    def __init__(self, blocks, rate: int, *, longest: int, pause: int, skip: int, padding: int, threshold, detector):
        self.skipped: list[tuple[float, float]] = []
        self.seconds = 0.0
        self._rate = rate
        self._longest, self._pause, self._skip, self._padding = (
            longest,
            pause,
            skip,
            padding,
        )  # samples, like all below
        self._threshold, self._detector = threshold, detector
        self._buffer = _SampleBuffer()
        # Of the chunk that is being filled:
        self._start = 0
        self._speech_frames = 0
        self._pauses: list[tuple[int, int]] = []  # between two words
        self._frames: list[_Frame] = []
        self._chunks = self._cut(blocks)

    def __next__(self) -> AudioChunk:
        return next(self._chunks)

    def _cut(self, blocks) -> Iterator[AudioChunk]:
        quiet_from = 0  # sample since which nobody speaks; None while somebody does
        for frame in self._judge(blocks):
            self._frames.append(frame)
            if frame.is_speech:
                if quiet_from is not None and self._speech_frames:
                    self._pauses.append((quiet_from, frame.start))
                elif quiet_from is not None and frame.start - quiet_from >= self._skip:
                    self._leave_out(frame.start - self._padding)
                quiet_from = None
                self._speech_frames += 1
                yield from self._full_chunks(frame.end, frame.end)
                continue
            if quiet_from is None:
                quiet_from = frame.start
            if frame.end - quiet_from >= self._skip:
                if self._speech_frames:
                    yield from self._last_chunk(quiet_from, quiet_from + self._padding)
                self._frames.clear()
                self._buffer.drop_before(frame.end - self._padding)
        end = self._buffer.end
        if self._speech_frames:
            yield from self._last_chunk(end if quiet_from is None else quiet_from, end)
        self._leave_out(end)

    def _judge(self, blocks) -> Iterator[_Frame]:
        """Frames of 32 ms, of samples that are in the buffer by then."""
        pending = np.zeros(0, np.float32)
        count, speaks = 0, False

        def judge(samples):
            nonlocal count, speaks
            speaks = self._detector(samples) >= self._threshold - (
                min(SPEECH_OFF, self._threshold / 2) if speaks else 0
            )
            start, end = (round(n * FRAME * self._rate / FRAME_RATE) for n in (count, count + 1))
            count += 1
            return _Frame(start, min(end, self._buffer.end), speaks, float(np.mean(np.square(samples))))

        for block in resample_blocks(self._keep(blocks), self._rate, FRAME_RATE):
            pending = np.concatenate([pending, block])
            whole = len(pending) // FRAME * FRAME
            for start in range(0, whole, FRAME):
                yield judge(pending[start : start + FRAME])
            pending = pending[whole:]
        if len(pending):
            yield judge(np.pad(pending, (0, FRAME - len(pending))))

    def _keep(self, blocks):
        for block in blocks:
            block = _checked_block(block)
            self._buffer.append(block)
            self.seconds = self._buffer.end / self._rate
            yield block

    def _full_chunks(self, needed_to: int, spoken_to: int) -> Iterator[AudioChunk]:
        """Chunks that are cut off while what is needed, up to a sample, would make the open one too long."""
        while needed_to > self._start + self._longest:
            cut = self._best_cut(spoken_to)
            yield self._take(cut)
            # Somebody speaks on both sides of a cut: what follows is no lone knock.
            self._speech_frames = MIN_SPEECH_FRAMES
            self._pauses = [pause for pause in self._pauses if pause[0] >= cut]
            self._frames = [frame for frame in self._frames if frame.start >= cut]

    def _last_chunk(self, spoken_to: int, end: int) -> Iterator[AudioChunk]:
        """What there is before a silence or the recording's end; the last chunk is padded as far as it may."""
        yield from self._full_chunks(min(end, spoken_to + self._pause // 2), spoken_to)
        if self._speech_frames >= MIN_SPEECH_FRAMES:
            yield self._take(min(end, self._start + self._longest))
        self._speech_frames = 0
        self._pauses.clear()

    def _best_cut(self, spoken_to: int) -> int:
        limit = self._start + self._longest
        cuts = [(end - start, min((start + end) // 2, limit), start) for start, end in self._pauses]
        cuts = [
            (length, cut) for length, cut, start in cuts if length >= self._pause and cut - start >= self._pause // 2
        ]
        late = [(length, cut) for length, cut in cuts if cut - self._start >= self._longest / 2]
        if cuts:
            return max(late)[1] if late else cuts[-1][1]
        latest = min(limit, spoken_to - self._pause)  # what follows is to be more than the end of a word
        earliest = latest - CUT_TAIL * self._longest
        frames = [frame for frame in self._frames if frame.start > self._start and frame.end <= latest]
        levels = np.convolve([frame.level for frame in frames], np.ones(LEVEL_FRAMES), mode="same")
        levels /= np.convolve(np.ones(len(frames)), np.ones(LEVEL_FRAMES), mode="same")
        tail = [index for index, frame in enumerate(frames) if frame.start >= earliest]
        quietest = frames[min(tail, key=levels.__getitem__)]
        return (quietest.start + quietest.end) // 2

    def _take(self, end: int) -> AudioChunk:
        chunk = AudioChunk(self._buffer.take(self._start, end), self._start / self._rate, end / self._rate)
        self._buffer.drop_before(end)
        self._start = end
        return chunk

    def _leave_out(self, end: int):
        if end > self._start:
            start = self._start / self._rate
            if self.skipped and self.skipped[-1][1] == start:  # a knock was between the two
                start = self.skipped.pop()[0]
            self.skipped.append((start, end / self._rate))
        self._start = end


def overlapping_windows(
    blocks: Iterable[np.ndarray], rate: int, length_seconds: float, stride_seconds: float
) -> Iterator[AudioChunk]:
    """Cuts a recording into windows of one length, as `chunk_length_s` and `stride_length_s` do in transformers.

    A window has `stride_seconds` on each side as context, so that it shares twice as much with the next one. Its
    transcripts are joined by [`join_transcripts`].

    Args:
        blocks: consecutive arrays of shape `(samples,)`, float32, of any lengths, as of [`stream_audio`].
        rate (`int`): their rate, Hz.
        length_seconds (`float`): length of a window, in seconds; the last one may be shorter.
        stride_seconds (`float`): context on each side, in seconds: less than half of the length. A sixth is usual.

    Raises:
        ValueError: if windows of that length and context do not advance.
    """
    if not 0 <= 2 * stride_seconds < length_seconds < float("inf"):
        raise ValueError(
            f"stride_seconds is {stride_seconds}; it must be at least 0 and less than half of length_seconds, "
            f"{length_seconds}."
        )
    length = round(length_seconds * rate)
    step = length - 2 * round(stride_seconds * rate)
    if step < 1:
        raise ValueError(f"Windows of {length_seconds} s do not advance at {rate} Hz: take a smaller stride_seconds.")
    return _windows(blocks, rate, length, step)


def _windows(blocks, rate: int, length: int, step: int) -> Iterator[AudioChunk]:
    buffer, start = _SampleBuffer(), 0
    for block in blocks:
        buffer.append(_checked_block(block))
        while buffer.end > start + length:  # one that reaches the recording's end exactly is the last
            yield AudioChunk(buffer.take(start, start + length), start / rate, (start + length) / rate)
            start += step
            buffer.drop_before(start)
    if buffer.end > start:
        yield AudioChunk(buffer.take(start, buffer.end), start / rate, buffer.end / rate)


def _checked_block(block) -> np.ndarray:
    block = np.asarray(block)
    if block.ndim != 1 or not np.issubdtype(block.dtype, np.floating):
        raise ValueError(
            f"A block of the recording is {block.dtype} of shape {block.shape}; give float arrays of shape (samples,), "
            "as stream_audio does."
        )
    return block.astype(np.float32, copy=False)


class _SampleBuffer:
    """The latest samples of a stream; positions count from the stream's beginning."""

    def __init__(self):
        self.end = 0
        self._start = 0
        self._blocks: deque[np.ndarray] = deque()

    def append(self, block: np.ndarray):
        self._blocks.append(block)
        self.end += len(block)

    def take(self, start: int, end: int) -> np.ndarray:
        """A copy of shape `(end - start,)`."""
        parts, position = [], self._start
        for block in self._blocks:
            parts.append(block[max(start - position, 0) : max(end - position, 0)])
            position += len(block)
        return np.concatenate(parts)

    def drop_before(self, start: int):
        while self._blocks and self._start + len(self._blocks[0]) <= start:
            self._start += len(self._blocks.popleft())


# Scripts that put no spaces between words are compared character by character: Thai, Lao, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECE = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")

# How a pair of words speaks for or against an alignment. A word that occurs n times in a window is worth 1 / n, since it
# may be another of the n. The outermost word of a window is often cut in two, and then misheard, left out or made up.
DIFFERENT = -1.0
EDGE_SIMILAR, EDGE_DIFFERENT = 0.5, -0.5
UNEXPECTED = 0.2  # speaks against every word by which an overlap is longer or shorter than expected


def join_transcripts(texts: Iterable[str], overlap: float | None = None) -> str:
    """One transcript from those of windows that overlap, as of [`overlapping_windows`].

    The end of each text and the beginning of the next are aligned word by word, case and punctuation aside. Words that
    both have are kept once; the join is in the middle of them, so that what was heard at the edge of a window, where a
    word may be cut in two, gives way to what the other window heard in full. Texts that have nothing in common there are
    put side by side, and so are those on both sides of an empty one.

    Where one word or phrase is repeated all through the overlap, the text does not tell how often it was said in both:
    of the overlaps that are likely, the one nearest to `overlap` is taken, or without that the longest.

    Args:
        texts: transcripts in the order of the windows. [`cut_at_silences`] makes chunks that share nothing; theirs are
            joined by `" ".join`.
        overlap (`float`, *optional*): part of a window that the next one has as well, 0 to 1: twice `stride_seconds`
            over `length_seconds`.

    Raises:
        ValueError: if `overlap` is no such part.
    """
    if overlap is not None and not 0 <= overlap < 1:
        raise ValueError(
            f"overlap is {overlap}; it must be at least 0 and below 1: 2 * stride_seconds / length_seconds."
        )
    joined: list[str] = []
    previous = 0  # pieces of the last text
    for text in texts:
        pieces = _split(text)
        # The tail that stems from the last text: with what was said before that, this one has nothing in common.
        tail = joined[len(joined) - previous :]
        keep, skip = _find_overlap([_normalise(p) for p in tail], [_normalise(p) for p in pieces], overlap)
        joined = joined[: len(joined) - previous + keep]
        rest = pieces[skip:]
        if joined and rest and not rest[0][0].isspace() and not _is_unspaced(joined[-1].lstrip()[0] + rest[0][0]):
            rest[0] = " " + rest[0]
        joined += rest
        previous = min(len(pieces), len(joined))
    return "".join(joined).strip()


def _split(text: str) -> list[str]:
    """Words or characters with the space before and the punctuation after them: joined, they are the text."""
    pieces = []
    for piece in _PIECE.findall(text.strip()):
        if pieces and not _normalise(piece):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def _normalise(piece: str) -> str:
    return "".join(character for character in piece.casefold() if character.isalnum())


def _is_unspaced(pair: str) -> bool:
    return re.fullmatch(f"[{_UNSPACED}]+", pair) is not None


def _find_overlap(left: list[str], right: list[str], overlap: float | None) -> tuple[int, int]:
    """How many words of `left` are kept, and how many of `right` are left out, where the two are joined.

    Aligns an end of `left` with a beginning of `right`, of whatever lengths, so that what speaks for it outweighs what
    speaks against it by most, and joins them at the pair of equal words nearest to the middle. Where nothing outweighs, or
    no words are equal, the two have nothing in common.
    """
    if not left or not right:
        return len(left), 0
    rows, columns = len(left), len(right)
    counts = Counter(left) | Counter(right)  # the greater of the two
    worth = {word: 1 / count for word, count in counts.items()}
    # scores[i][j]: of the best alignment of right[:j] with an end of left[:i]; the words before that end cost nothing.
    scores = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    steps = [[""] * (columns + 1) for _ in range(rows + 1)]
    for column in range(1, columns + 1):
        scores[0][column] = scores[0][column - 1] + (EDGE_DIFFERENT if column == 1 else DIFFERENT)
        steps[0][column] = "right"
    for row in range(1, rows + 1):
        # Left's last word and right's first are at the edge, whether they are misheard or made up.
        only_left = EDGE_DIFFERENT if row == rows else DIFFERENT
        for column in range(1, columns + 1):
            only_right = EDGE_DIFFERENT if column == 1 else DIFFERENT
            if left[row - 1] == right[column - 1]:
                both = worth[left[row - 1]]
            elif (row == rows or column == 1) and _are_similar(left[row - 1], right[column - 1]):
                both = EDGE_SIMILAR
            else:
                both = max(only_left, only_right)
            scores[row][column], steps[row][column] = max(
                (scores[row - 1][column - 1] + both, "both"),
                (scores[row - 1][column] + only_left, "left"),
                (scores[row][column - 1] + only_right, "right"),
                key=lambda way: way[0],
            )
    ends = [column for column in range(columns + 1) if scores[rows][column] > 0]
    if not ends:
        return rows, 0
    if overlap is None:
        column = max(ends, key=lambda column: (scores[rows][column], column))
    else:  # a weak expectation, since the words of a window are seldom spread evenly over it
        column = max(ends, key=lambda column: scores[rows][column] - UNEXPECTED * abs(column - overlap * columns))
    row, end = rows, column
    pairs = []
    while column:
        step = steps[row][column]
        if step == "both":
            row, column = row - 1, column - 1
            if left[row] == right[column]:
                pairs.append((row, column))
        elif step == "left":
            row -= 1
        else:
            column -= 1
    if not pairs:
        return rows, 0
    middle = (row + rows, end)  # of both stretches, twice
    row, column = min(pairs, key=lambda pair: abs(2 * pair[0] + 1 - middle[0]) + abs(2 * pair[1] + 1 - middle[1]))
    # Both have the word; the outermost one of a window may have got a full stop that is not there.
    return (row, column) if row == rows - 1 else (row + 1, column + 1)


def _are_similar(one: str, other: str) -> bool:
    """Whether one may be a part of the other: half of the longer one, or more, is at the beginning or end of both."""
    longer = max(len(one), len(other))
    same = max(_common_beginning(one, other), _common_beginning(one[::-1], other[::-1]))
    return longer > 2 and 2 * same >= longer


def _common_beginning(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
