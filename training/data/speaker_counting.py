"""Clips of one speaker or of two, for speaker counting, from recordings of one speaker each.

    python training/data/speaker_counting.py data/spoken/manifest.jsonl --out data/counting --seed 0

The manifest's rows need `audio` and a field that says who speaks (`--speaker`, default `timbre`). Every recording opens
one clip and is followed by another of the same split: alternately by the same speaker, then by another one. Both kinds
are made by the same path, see [`mix_speakers`]: what is left to tell them apart is the voices, and overlap.

The output folder holds `audio/000000.flac`, ..., 16 kHz mono, and `manifest.jsonl` with `audio`, `duration` (s), `task`
"sc", `target` "one" or "two", `speakers`, `texts`, `sources` (the recordings), `gap` (s, below 0 if both are heard at
once), `overlap` (s), `level` (dB, of the second piece) and `split`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from speechverse.processing.audio_speechverse import load_audio
from speechverse.training.data.mixing import SAMPLING_RATE, draw_turn, mix_speakers, seeded
from speechverse.training.data.whole_files import write_whole


TARGETS = {True: "one", False: "two"}  # by whether the second piece is of the same speaker


def count_speakers(manifest: str | Path, output_dir: str | Path, speaker: str = "timbre", seed: int = 0) -> Path:
    """
    Makes the clips, one for every recording that has a partner.

    Args:
        manifest (`str` or `Path`): JSONL manifest of recordings of one speaker each.
        output_dir (`str` or `Path`): Folder of the clips and their manifest, created if absent.
        speaker (`str`, *optional*, defaults to `"timbre"`): Field that says who speaks.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `Path`: `manifest.jsonl` in `output_dir`.

    Raises:
        ValueError: If a row lacks a field, or a split has too few recordings to pair.
    """
    manifest, output_dir = Path(manifest), Path(output_dir)
    rows = _read_rows(manifest, speaker)
    pairs = [
        pair
        for split in dict.fromkeys(row.get("split") for row in rows)
        for pair in _pairs(rows, split, speaker, seed)
    ]
    (output_dir / "audio").mkdir(parents=True, exist_ok=True)
    lines = []
    for index, (first, second) in enumerate(tqdm(pairs, unit="clip", desc="Mixing")):
        same = first[speaker] == second[speaker]
        turn = draw_turn(seed, str(index), same)
        pieces = [load_audio(manifest.parent / row["audio"], SAMPLING_RATE) for row in (first, second)]
        clip, overlap = mix_speakers(*pieces, turn)
        path = output_dir / "audio" / f"{index:06d}.flac"
        soundfile.write(path, clip, SAMPLING_RATE)
        line = {
            "audio": path.relative_to(output_dir).as_posix(),
            "duration": len(clip) / SAMPLING_RATE,
            "task": "sc",
            "target": TARGETS[same],
            "speakers": [first[speaker], second[speaker]][: 1 if same else 2],
            "texts": [first.get("text"), second.get("text")],
            "sources": [first["audio"], second["audio"]],
            "gap": turn.gap,
            "overlap": overlap,
            "level": turn.level,
        } | ({"split": first["split"]} if "split" in first else {})
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_whole(output_dir / "manifest.jsonl", "".join(lines).encode())
    return output_dir / "manifest.jsonl"


def _pairs(rows: list[dict], split, speaker: str, seed: int) -> Iterator[tuple[dict, dict]]:
    """Every recording of a split, each with a second one, in a drawn order, of the same speaker every other time."""
    rows = [row for row in rows if row.get("split") == split]
    places: dict[str, list[int]] = {}  # of every speaker's recordings
    for place, row in enumerate(rows):
        places.setdefault(str(row[speaker]), []).append(place)
    own = {name: np.array(found) for name, found in places.items()}
    for rank, place in enumerate(seeded(seed, f"order {split}").permutation(len(rows))):
        same, name = rank % 2 == 0, str(rows[place][speaker])
        number = len(own[name]) - 1 if same else len(rows) - len(own[name])
        if not number:
            who = f"another recording by {name}" if same else "a recording by another speaker"
            raise ValueError(f"The split {split!r} has no second recording for {rows[place]['audio']}: add {who}.")
        drawn = seeded(seed, f"partner {split} {place}").integers(number)
        if same:
            partner = own[name][drawn + (drawn >= np.searchsorted(own[name], place))]
        else:  # the drawn one of the places that are not the speaker's: as many of his come before it as are added
            partner = drawn + np.searchsorted(own[name] - np.arange(len(own[name])), drawn, side="right")
        yield rows[place], rows[partner]


def _read_rows(manifest: Path, speaker: str) -> list[dict]:
    if not manifest.is_file():
        raise ValueError(f"{manifest} is not a file: give a JSONL manifest of recordings.")
    rows = []
    with manifest.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{manifest}, line {number} is not JSON ({error}).") from error
            for field in ("audio", speaker):
                if not isinstance(row, dict) or not row.get(field):
                    raise ValueError(f"{manifest}, line {number} has no field `{field}`.")
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="JSONL manifest of recordings of one speaker each")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the clips")
    parser.add_argument("--speaker", default="timbre", metavar="FIELD", help="who speaks (default: timbre)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    options = parser.parse_args()
    try:
        print(count_speakers(options.manifest, options.out, options.speaker, options.seed))
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
