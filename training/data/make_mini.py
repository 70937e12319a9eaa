"""Makes the mini corpus: small data for all tasks, out of texts that TTS speaks and of a few hours of real speech.

    python training/data/make_mini.py --out data                       # commands of our own grammar alone, by TTS
    python training/data/make_mini.py --out data --from DIR           # DIR holds published corpora
    python training/data/make_mini.py --out data --from DIR --transcripts   # and more speech, for transcription alone
    SPEECHVERSE_DATA=data python training/data/prepare.py training/configs/mini.yaml

DIR holds the texts of snips, nlu_evaluation, multi30k and clinc150, and the recordings of ravdess, fsdd and esc10, in folders of
these names as the files in training/data/corpora say; or in the folders texts and real_speech, in the other layout that they
know. With --from they are linked into --out, and nothing is written to where they are. Without texts the commands are all that
is spoken; without real speech there are neither emotions nor sentiment, and the sounds that are no speech are generated.

Where the engines have voices enough, three groups of timbres are kept apart, for train, validation and test; where they have
not, all voices speak all splits, and the output says so. No sentence is in two splits of any spoken corpora. Half of the
sentences are spoken with noise, a room or both; the noises of validation and test are kept for speech detection there.

With texts, some test sentences are spoken once more, to test alone what carries over: by voices of training beside those held
out (`voices`), and in German (`spoken/multi30k_german`).

Run again after an interruption, it makes what is missing.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import soundfile

from speechverse.training.data.corpus import Corpus, load_corpus, read_rows, texts
from speechverse.training.data.derivations.seen_unseen import SeenUnseen
from speechverse.training.data.generated_noise import KINDS, generate_noise
from speechverse.training.data.grammar import make_sentences
from speechverse.training.data.mixing import SAMPLING_RATE
from speechverse.training.data.overlaps import plain_text
from speechverse.training.data.rows import RejectedRow
from speechverse.training.data.speaker_counting import count_speakers
from speechverse.training.data.speech_detection import pair_clips
from speechverse.training.data.synthesize import synthesize
from speechverse.training.data.tts_engines import VOICES, Voice, find_voice, installed_voices
from speechverse.training.data.voice_pool import group_timbres
from speechverse.training.data.whole_files import write_whole


logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
# Who speaks validation and test; all others speak train. Both have a British accent and an American one, of two timbres, so
# that accents and speakers can be told apart in them. The accents of espeak-ng are one timbre, which is left to train: there
# it says that an accent is not a voice.
KEPT_VOICES = {"validation": ("flite:awb", "flite:slt"), "test": ("nanotts:en-GB", "hibari:heart")}

# Sentences of each corpus and split, 7,750 in all; which corpora serve which tasks is mini.yaml's business.
NUM_SENTENCES = 7_750
SENTENCES = {
    "commands": {"train": 1100, "validation": 150, "test": 250},  # the grammar has its own proportions
    "snips": {"train": 800, "validation": 350},
    "nlu_evaluation": {"train": 2400, "validation": 250, "test": 450},
    "multi30k": {"train": 1200, "validation": 200, "test": 250},
    "clinc150": {"test": 350},
}
NUM_COMMANDS = 400  # without texts
NUM_AGAIN = 60  # sentences of multi30k's test that are spoken once more, by two kinds of voices and in German
SEEN_SHARE = 0.9  # of what a corpus gives to train and validation, where but a few of its classes are trained on
AMERICAN = ("American", "New York")
CLEAN_SHARE = 0.5
SNR, RT60 = (5.0, 25.0), (0.2, 0.6)  # dB, s

TRANSCRIPTS = "mini_transcripts"

TEXTS = tuple(name for name in SENTENCES if name != "commands")
REAL_SPEECH = ("ravdess", "fsdd", "esc10")
REAL_SPLITS = {"train": "mini_train", "validation": "mini_validation", "test": "mini_test"}
FOLDS = {"train": "[12]", "validation": "3", "test": "4"}  # of ESC-10; fold 5 is not used
NUM_GENERATED = {"train": 60, "validation": 15, "test": 15}
# Of the commands spoken once more, without noise and at a voice's own pitch, to be joined.
PIECES_SHARE = 0.4
MAX_DIGITS = 600  # of FSDD, joined in training alone
PAIRS_SHARE = {
    "train": 0.12,
    "validation": 0.025,
    "test": 0.025,
}  # pairs of clips for speech detection, of all sentences


def make_mini(
    folder: str | Path,
    source: str | Path | None = None,
    num_sentences: int | None = None,
    voices: Sequence[str] | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    transcripts: bool = False,
) -> dict[str, dict[str, dict[str, float]]]:
    """
    Makes everything that `training/configs/mini.yaml`, or `mini_commands.yaml` without texts, reads.

    Args:
        folder (`str` or `Path`): The data folder, `$SPEECHVERSE_DATA` of what follows; created if absent.
        source (`str` or `Path`, *optional*): A folder with published corpora, which are linked.
        num_sentences (`int`, *optional*): About how many to speak; defaults to 7,750, and to 400 without texts.
        voices (`list[str]`, *optional*): Voices to speak with; defaults to every installed English one.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.
        num_workers (`int`, *optional*): Processes that speak; defaults to one per available core.
        transcripts (`bool`, *optional*, defaults to `False`): Whether to speak all other training sentences too, for
            transcription alone: about 15,000.

    Returns:
        `{part: {split: {"clips": int, "hours": float}}}` of what was made.

    Raises:
        ValueError: If `source` holds none, or `num_sentences` is too small.
        FileNotFoundError: If some of the texts, or of the real speech, are there and others are not; it says how to get them.
        ImportError: If no engine speaks English.
        RuntimeError: If an engine fails; what is finished stays.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        link_sources(Path(source), folder)
    with _data_folder(folder):
        real, written = are_there(REAL_SPEECH), are_there(TEXTS)
    num_sentences = num_sentences or (NUM_SENTENCES if written else NUM_COMMANDS)
    plan, why_not_held_out = plan_voices(voices)
    for line in filter(None, (why_not_held_out, None if real else NO_REAL_SPEECH, None if written else NO_TEXTS)):
        logger.info(line)

    if transcripts and not written:
        raise ValueError("--transcripts is about sentences of texts, and there are none: give --from.")
    made = {}
    with _data_folder(folder):
        sounds = make_sounds(folder, real, seed)
        chosen = choose_sentences(num_sentences, written, seed)
        for name, rows in chosen.items():
            rows = _augmented(rows, plan, name == "commands", f"{seed} {name}")
            made[f"spoken/{name}"] = _speak(rows, folder / "spoken" / name, plan, seed, num_workers)
        made["pieces"] = _speak(
            speaker_pieces(_rows(made["spoken/commands"]), plan, seed), folder / "pieces", plan, seed, num_workers
        )
        for name, rows in countable(folder, real, seed).items():
            made[f"counting/{name}"] = _made(
                folder / "counting" / name,
                {"rows": rows, "seed": seed},
                lambda rows=rows, name=name: _count(rows, folder / "counting" / name, seed),
            )
        spoken = [path for part, path in made.items() if part.startswith("spoken/")]
        pairs = {split: max(4, round(share * num_sentences)) for split, share in PAIRS_SHARE.items()}
        speech = speech_recordings(spoken, real)
        made["detection"] = _made(
            folder / "detection",
            {"speech": speech, "sounds": sounds, "pairs": pairs, "seed": seed},
            lambda: pair_clips(speech, sounds, folder / "detection", pairs, seed),
        )
        if transcripts:
            rows = _augmented(other_sentences(chosen, seed), plan, False, f"{seed} {TRANSCRIPTS}")
            made[f"spoken/{TRANSCRIPTS}"] = _speak(rows, folder / "spoken" / TRANSCRIPTS, plan, seed, num_workers)
        if written:
            made |= speak_again(chosen["multi30k"], num_sentences, folder, plan, seed, num_workers)
    return {part: _summary(path) for part, path in made.items()}


NO_REAL_SPEECH = (
    "No real speech is there: er and asc have no data, and the sounds of sns that are no speech are generated."
)
NO_TEXTS = "No texts are there: the commands of our own grammar are all that is spoken."


def link_sources(source: Path, folder: Path) -> None:
    """Links the corpora that are there into the data folder.

    Raises:
        ValueError: If there are none.
    """
    known = ("texts", "real_speech", *TEXTS, *REAL_SPEECH)
    names = [name for name in known if (source / name).is_dir()]
    if not names:
        raise ValueError(f"{source} holds none of {', '.join(known)}: give the folder above them.")
    for name in names:
        if not (folder / name).exists():
            (folder / name).symlink_to((source / name).resolve(), target_is_directory=True)


def are_there(names: Sequence[str]) -> bool:
    """Whether these corpora lie on this machine: their texts, or the recordings of those that are not spoken.

    Raises:
        FileNotFoundError: If some do and others do not.
    """
    corpora = [load_corpus(name) for name in names]
    sources = [corpus.built_texts or corpus.built_sources for corpus in corpora]
    if not any(source.is_there() for of_corpus in sources for source in of_corpus):
        return False
    for corpus, of_corpus in zip(corpora, sources, strict=True):
        corpus.found(of_corpus)
    return True


def plan_voices(names: Sequence[str] | None = None) -> tuple[dict[str, list[Voice]], str | None]:
    """
    Which voices speak which split.

    Returns:
        the voices of each split, and why none are held out; `None` if they are.

    Raises:
        ImportError: If no engine speaks English.
    """
    chosen = [find_voice(name, "`voices`") for name in names] if names else installed_voices("en")
    if not chosen:
        raise ImportError("No engine for English is installed: run `pip install py-nanotts hibari-tts`.")
    kept = {split: {VOICES[name].timbre for name in kept} for split, kept in KEPT_VOICES.items()}
    plan = {split: [voice for voice in chosen if voice.timbre in kept[split]] for split in kept}
    plan["train"] = [voice for voice in chosen if not any(voice.timbre in timbres for timbres in kept.values())]
    if all(len(group_timbres(plan[split])) >= 2 for split in SPLITS):
        return plan, None
    return dict.fromkeys(SPLITS, chosen), (
        f"No voice is held out: {len(group_timbres(chosen))} timbres are too few for three groups of two (apt-get install "
        "flite espeak-ng adds five)."
    )


def is_held_out(plan: dict[str, list[Voice]]) -> bool:
    """Whether the splits have voices of their own."""
    return plan["train"] != plan["test"]


def choose_sentences(count: int, written: bool, seed: int = 0) -> dict[str, list[dict]]:
    """
    What is spoken, by corpus: of every class of an intent the same share. A sentence that test or validation has, of any
    corpus, is left out of the others.

    Args:
        count (`int`): About how many sentences in all.
        written (`bool`): Whether there are other corpora than the commands.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.
    """
    scale = count / NUM_SENTENCES
    commands = round(sum(SENTENCES["commands"].values()) * scale) if written else count
    chosen = {"commands": make_sentences(commands, seed)}
    for name in TEXTS if written else ():
        chosen[name] = [
            {"sentence" if field == "key" else field: value for field, value in row.items()}
            for row in _choose(load_corpus(name), SENTENCES[name], scale, f"{seed} {name}")
        ]
    owner = {}
    for split in reversed(SPLITS):
        for rows in chosen.values():
            for row in rows:
                if row["split"] == split:
                    owner.setdefault(plain_text(row["text"]), split)
    kept = {
        name: [row for row in rows if owner[plain_text(row["text"])] == row["split"]] for name, rows in chosen.items()
    }
    for name, rows in chosen.items():
        if dropped := len(rows) - len(kept[name]):
            logger.info(f"{name}: {dropped} sentences are left out, since a split that is held out has them")
    return kept


def other_sentences(chosen: dict[str, list[dict]], seed: int = 0) -> list[dict]:
    """The training sentences that are in none of the corpora, in any order: words alone, without their labels. Those of
    clinc150, of which nothing is trained on, are left out."""
    taken = {plain_text(row["text"]) for rows in chosen.values() for row in rows} | {""}
    rows = []
    for name in ("nlu_evaluation", "snips", "multi30k"):
        for row in texts(load_corpus(name)):
            if isinstance(row, RejectedRow) or row["split"] != "train" or plain_text(row["text"]) in taken:
                continue
            taken.add(plain_text(row["text"]))
            rows.append({"text": row["text"], "split": "train", "sentence": f"{name} {row['key']}"})
    random.Random(f"{seed} more").shuffle(rows)
    return rows


def _choose(corpus: Corpus, numbers: dict[str, int], scale: float, key: str) -> list[dict]:
    """So many sentences of each split. Where a corpus sets classes apart, those that are trained on are preferred, else few
    sentences would serve: but not in the test, which asks for both."""
    rows = [row for row in texts(corpus) if not isinstance(row, RejectedRow)]
    train = [row for row in rows if row["split"] == "train"]
    apart = [derivation for derivation in corpus.derivations if isinstance(derivation, SeenUnseen)]
    groups = [[row[one.into] for row in one.apply(rows, lambda: train)] for one in apart]
    seen = {rows[place]["key"] for group in groups for place, name in enumerate(group) if name == "seen"}
    chosen = []
    for split, number in numbers.items():
        number = round(number * scale)
        of_split = [row for row in rows if row["split"] == split]
        preferred = [row for row in of_split if row["key"] in seen and split != "test"]
        part = stratified(preferred, round(SEEN_SHARE * number), key)
        taken = {row["key"] for row in part}
        chosen += part + stratified([row for row in of_split if row["key"] not in taken], number - len(part), key)
    return chosen


def stratified(rows: list[dict], count: int, key: str, by: str = "intent") -> list[dict]:
    """So many rows, every class by its share, in their order."""
    groups = defaultdict(list)
    for place, row in enumerate(rows):
        groups[row.get(by)].append(place)
    ranked = []
    for label, places in groups.items():
        random.Random(f"{key} {label}").shuffle(places)
        ranked += [((rank + 0.5) / len(places), place) for rank, place in enumerate(places)]
    return [rows[place] for place in sorted(place for _, place in sorted(ranked)[:count])]


def make_sounds(folder: Path, real: bool, seed: int) -> list[dict]:
    """
    Recordings and formulas of what is no speech, by split; those of train also lie behind sentences.

    Returns:
        rows with `audio`, `split` and `turn`, the kind of sound.
    """
    rows = []
    if real:
        corpus = load_corpus("esc10")
        found = corpus.found(corpus.built_sources)
        by_fold = [
            row
            for split in found.splits
            for row in read_rows(corpus, found, split, {"fold", "sound"}, streaming=False)
        ]
        for split, folds in FOLDS.items():
            rows += [
                {"audio": row["audio"], "split": split, "turn": row["sound"]}
                for row in by_fold
                if row["fold"] in folds
            ]
    (folder / "noises").mkdir(exist_ok=True)
    for split, count in NUM_GENERATED.items():
        for index in range(count):
            kind = list(KINDS)[index % len(KINDS)]
            path = folder / "noises" / f"{split}-{kind}-{index:03d}.flac"
            if not path.is_file():
                part = path.with_suffix(".part")
                soundfile.write(part, generate_noise(kind, 5.0, seed, path.stem), SAMPLING_RATE, format="FLAC")
                part.replace(path)
            rows.append({"audio": str(path), "split": split, "turn": kind})
    lines = [{"audio": _below(row["audio"], folder / "noises")} for row in rows if row["split"] == "train"]
    write_whole(folder / "noises" / "train.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return rows


def _augmented(rows: list[dict], plan: dict[str, list[Voice]], by_accent: bool, key: str) -> list[dict]:
    """The rows with their voice, and with null where there shall be no noise, or no room.

    With `by_accent`, of two lines of training one is American and the other is not, although most timbres are American. Lines
    of the test are left to `synthesize`, which draws among the voices that are held out.
    """
    choices = {"validation": [plan["validation"]], "train": [plan["train"]]}
    if by_accent:
        american = [voice for voice in plan["train"] if voice.accent in AMERICAN]
        others = [voice for voice in plan["train"] if voice not in american]
        choices["train"] = [voices for voices in (american, others) if voices]
    drawn = []
    for row in rows:
        draw = random.Random(f"{key} {row['sentence']}")
        how = {"snr": None, "rt60": None} if draw.random() < CLEAN_SHARE else {}
        only = draw.choice(["snr", "rt60", "both"])  # drawn for clean ones too: the share changes no other draw
        if not how and only != "both":
            how = {"rt60" if only == "snr" else "snr": None}
        if row["split"] in choices:
            voices = draw.choice(choices[row["split"]])
            how["voice"] = draw.choice(draw.choice(list(group_timbres(voices).values()))).name
        drawn.append(row | how)
    return drawn


def _speak(rows: list[dict], folder: Path, plan: dict[str, list[Voice]], seed: int, num_workers: int | None) -> Path:
    logger.info(f"{folder.parent.name}/{folder.name}: {len(rows)} sentences")
    return synthesize(
        rows,
        folder,
        voices=[voice.name for voice in plan["train"]],
        held_out_voices=[voice.name for voice in plan["test"]] if is_held_out(plan) else (),
        noise=Path(os.environ["SPEECHVERSE_DATA"]) / "noises" / "train.jsonl",
        snr=SNR,
        reverb=RT60,
        seed=seed,
        num_workers=num_workers,
    )


def speaker_pieces(commands: list[dict], plan: dict[str, list[Voice]], seed: int = 0) -> list[dict]:
    """Commands to be spoken once more: clean, at a voice's own speed and pitch, each timbre in one accent. Otherwise one
    speaker could sound like two."""
    pieces = []
    for split in SPLITS:
        rows = [row for row in commands if row["split"] == split]
        voices = [group[0].name for group in group_timbres(plan[split]).values()]
        # Two pieces of each timbre at least, which can then be joined.
        chosen = stratified(rows, max(2 * len(voices), round(PIECES_SHARE * len(rows))), f"{seed} pieces")
        pieces += [
            {"text": row["text"], "split": split, "voice": voices[index % len(voices)]}
            | {"speed": 1.0, "pitch": 1.0, "snr": None, "rt60": None}
            for index, row in enumerate(chosen)
        ]
    return pieces


def speak_again(
    rows: list[dict],
    num_sentences: int,
    folder: Path,
    plan: dict[str, list[Voice]],
    seed: int = 0,
    num_workers: int | None = None,
) -> dict[str, Path]:
    """
    Some test sentences once more, clean and at a voice's own speed and pitch: by a voice of training and by one held out, and
    in German by voices whose timbre training does not hear, if there are any.

    Args:
        rows (`list[dict]`): The sentences of multi30k.
        num_sentences (`int`): About how many are spoken in all.

    Returns:
        the manifest of each part; none where no voice is held out, or none speaks German.
    """
    test = [row for row in rows if row["split"] == "test"]
    test = stratified(test, max(8, round(NUM_AGAIN * num_sentences / NUM_SENTENCES)), f"{seed} again")
    how = {"speed": 1.0, "pitch": 1.0}
    made = {}
    if is_held_out(plan):
        timbres = {split: list(group_timbres(plan[split]).values()) for split in ("train", "test")}
        spoken = [
            row | how | {"voice": groups[index % len(groups)][0].name}
            for index, row in enumerate(test)
            for groups in timbres.values()
        ]
        held_out = [voice.name for voice in plan["test"]]
        made["voices"] = synthesize(
            spoken,
            folder / "voices",
            voices=[voice.name for voice in plan["train"]],
            held_out_voices=held_out,
            test_voices="all",
            seed=seed,
            num_workers=num_workers,
        )
    heard = {voice.timbre for voice in plan["train"]}
    german = installed_voices("de")
    voices = [voice.name for voice in german if voice.timbre not in heard] or [voice.name for voice in german]
    if voices:
        spoken = [
            {"text": row["de"], "en": row["text"], "split": "test", "sentence": row["sentence"]} | how for row in test
        ]
        name = "multi30k_german"
        made[f"spoken/{name}"] = synthesize(
            spoken, folder / "spoken" / name, voices=voices, language="de", seed=seed, num_workers=num_workers
        )
    return made


def countable(folder: Path, real: bool, seed: int = 0) -> dict[str, list[dict]]:
    """Recordings of one speaker each, by corpus: rows with `audio`, `speaker`, `split` and `text`."""
    pieces = [
        row | {"audio": str(folder / "pieces" / row["audio"]), "speaker": row["timbre"]}
        for row in _rows(folder / "pieces" / "manifest.jsonl")
    ]
    found = {"tts": pieces}
    if real:
        found["ravdess"] = list(_real_rows("ravdess", SPLITS))
        # All six speakers of the digits are trained on: whom speaker counting held out, another task would have heard.
        found["fsdd"] = stratified(list(_real_rows("fsdd", ["train"])), MAX_DIGITS, f"{seed} digits", "speaker")
    fields = ("audio", "speaker", "split", "text")
    return {name: [{field: row.get(field) for field in fields} for row in rows] for name, rows in found.items()}


def _count(rows: list[dict], folder: Path, seed: int) -> Path:
    lines = [row | {"audio": _below(row["audio"], folder)} for row in rows]
    write_whole(folder / "pieces.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return count_speakers(folder / "pieces.jsonl", folder, "speaker", seed)


def speech_recordings(manifests: list[Path], real: bool) -> list[dict]:
    """Recordings for speech detection: the sentences spoken without noise and room, and all real speech."""
    rows = [
        {"audio": str(manifest.parent / row["audio"]), "split": row["split"], "turn": "tts"}
        for manifest in manifests
        for row in _rows(manifest)
        if row.get("snr") is None and row.get("rt60") is None
    ]
    if real:
        for name, narrow in (("ravdess", False), ("fsdd", True)):  # FSDD was recorded at 8 kHz
            rows += [
                {"audio": row["audio"], "split": row["split"], "turn": name, "narrow": narrow}
                for row in _real_rows(name, SPLITS)
            ]
    return rows


def _real_rows(name: str, splits: Sequence[str]) -> Iterator[dict]:
    corpus = load_corpus(name)
    found = corpus.found(corpus.built_sources)
    for split in splits:
        for row in read_rows(corpus, found, REAL_SPLITS[split], {"speaker"}, streaming=False):
            if not isinstance(row, RejectedRow):
                yield {"audio": row["audio"], "speaker": f"{name}-{row['speaker']}", "split": split}


def _made(folder: Path, facts: dict, make: Callable[[], Path]) -> Path:
    """What `make` makes, unless the folder holds what it made of the same facts."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    record, manifest = folder / ".made_of", folder / "manifest.jsonl"
    if not (manifest.is_file() and record.is_file() and record.read_text() == digest):
        record.unlink(missing_ok=True)
        make()
        write_whole(record, digest.encode())
    return manifest


@contextlib.contextmanager
def _data_folder(folder: Path) -> Iterator[None]:
    """`$SPEECHVERSE_DATA`, where the corpora are looked for, is this folder."""
    before = os.environ.get("SPEECHVERSE_DATA")
    os.environ["SPEECHVERSE_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SPEECHVERSE_DATA"]
        else:
            os.environ["SPEECHVERSE_DATA"] = before


def _rows(manifest: Path) -> list[dict]:
    with manifest.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _below(path: str, folder: Path) -> str:
    """A path as it is written beside a manifest; the folder's links stay links."""
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder))).as_posix()


def _summary(manifest: Path) -> dict[str, dict[str, float]]:
    clips, hours = Counter(), Counter()
    for row in _rows(manifest):
        clips[row["split"]] += 1
        hours[row["split"]] += row["duration"] / 3600
    return {split: {"clips": clips[split], "hours": hours[split]} for split in SPLITS if clips[split]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to make")
    parser.add_argument("--from", type=Path, dest="source", metavar="DIR", help="folder with published corpora")
    parser.add_argument("--sentences", type=int, dest="num_sentences", metavar="N", help="about how many to speak")
    parser.add_argument("--voices", nargs="+", metavar="ENGINE:VOICE", help="voices (default: all English ones)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument(
        "--transcripts", action="store_true", help="speak all other training sentences too, for transcription alone"
    )
    parser.add_argument("--num-workers", type=int, help="processes that speak (default: one per core)")
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = make_mini(arguments.pop("out"), **arguments)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: run the same command again to resume\n")
    print(f"{'part':24}{'split':12}{'clips':>8}{'hours':>8}")
    for part, splits in made.items():
        for split, facts in splits.items():
            print(f"{part:24}{split:12}{facts['clips']:8}{facts['hours']:8.2f}")


if __name__ == "__main__":
    main()
