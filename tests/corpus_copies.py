"""A few rows of every shipped corpus, in the layout in which it is published: its files, columns and kinds of transcript.

The recordings are noise, and the texts are made up.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tiny_models import noise

from speechverse.training.data.corpus import Corpus, texts


@dataclass(frozen=True)
class Copy:
    """How to make a copy, and what should be read from it.

    Args:
        write: makes the copy in the folder that `$SPEECHVERSE_DATA` names.
        expected: split -> view -> the targets, in their order.
        spoken (`bool`): whether there are texts alone, to be spoken.
    """

    write: Callable[[Path], None]
    expected: dict[str, dict[str, list[str]]]
    spoken: bool = False


def write_audio(file: Path, seconds: float = 0.3, rate: int = 16_000, channels: int = 1, **options) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    wave = noise(round(seconds * rate) * channels / 16_000).reshape(-1, channels)  # as many samples as that rate needs
    soundfile.write(file, wave, rate, **options)


def encoded_audio() -> dict:
    stream = io.BytesIO()
    soundfile.write(stream, noise(0.3), 16_000, format="FLAC")
    return {"bytes": stream.getvalue(), "path": "somewhere.flac"}


def write_text(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "wt", encoding="utf-8") as stream:
        stream.write("".join(line + "\n" for line in lines))


def write_table(file: Path, rows: list[dict], delimiter: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(file: Path, *rows: dict) -> None:
    write_text(file, *(json.dumps(row, ensure_ascii=False) for row in rows))


def write_parquet(file: Path, rows: list[dict]) -> None:
    """As the Hub's own converter writes it: the recordings inside, declared as audio."""
    from datasets import Audio, Dataset, Features, Value

    kinds = {str: Value("string"), int: Value("int64"), bool: Value("bool")}
    features = {name: kinds.get(type(value)) for name, value in rows[0].items()}
    if "audio" in features:
        features["audio"] = {"bytes": Value("binary"), "path": Value("string")}
    table = Dataset.from_list(rows, features=Features(features))
    if "audio" in features:
        table = table.cast_column("audio", Audio(sampling_rate=16_000, decode=False))
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(file)


def speak(corpus: Corpus, folder: Path) -> None:
    """What synthesize.py leaves of a corpus's sentences."""
    lines = []
    for number, row in enumerate(texts(corpus)):
        if isinstance(row, dict):
            write_audio(folder / f"audio/{number:06}.flac")
            lines.append(row | {"audio": f"audio/{number:06}.flac", "duration": 0.3, "voice": "en-GB"})
    write_json_lines(folder / "manifest.jsonl", *lines)


# Tables of the Hub


def librispeech(root: Path) -> None:
    repository = root / "openslr" / "librispeech_asr"
    splits = {
        "train.clean.100": ["1-1-0000 THE GREY CAT SLEEPS", "1-1-0001 RAIN FALLS ON THE HARBOUR"],
        "train.clean.360": ["2-1-0000 A LOUD BELL RANG"],
        "train.other.500": ["3-1-0000 SHE FOUND THE LANTERN"],
        "validation.clean": ["4-1-0000 WHO GOES THERE"],
        "validation.other": ["5-1-0000 NOBODY KNOWS"],
        "test.clean": ["6-1-0000 THE SHIP HAS SAILED"],
        "test.other": ["7-1-0000 WINTER CAME EARLY"],
    }
    for name, lines in splits.items():
        rows = []
        for line in lines:
            key, text = line.split(" ", 1)
            reader, chapter, _ = key.split("-")
            row = {"file": f"{key}.flac", "audio": encoded_audio(), "text": text}
            rows.append(row | {"speaker_id": int(reader), "chapter_id": int(chapter), "id": key})
        write_parquet(repository / "all" / name / "0000.parquet", rows)
    paths = "\n".join(f"  - split: {name}\n    path: all/{name}/*.parquet" for name in splits)
    write_text(repository / "README.md", f"---\nconfigs:\n- config_name: all\n  data_files:\n{paths}\n---")


def voxpopuli(root: Path) -> None:
    repository = root / "facebook" / "voxpopuli"
    texts_of = {
        "train": ["we vote on the budget today", ""],
        "validation": ["thank you"],
        "test": ["the session is open"],
    }
    for language in ("en", "de"):  # the other languages lie beside
        for split, lines in texts_of.items():
            rows = [
                {
                    "audio_id": f"2010-PLENARY-{split}-{index}",
                    "language": 0,
                    "audio": encoded_audio(),
                    "raw_text": text.capitalize(),
                    "normalized_text": text if language == "en" else "guten tag",
                    "gender": "female",
                    "speaker_id": "125",
                    "is_gold_transcript": True,
                    "accent": "None",
                }
                for index, text in enumerate(lines)
            ]
            write_parquet(repository / language / split / "0000.parquet", rows)


def alpaca_tts(root: Path) -> None:
    rows = [
        {
            "instruction": f"Rewrite {{sentence}} {index}.",  # braces are no field
            "input": "" if index == 3 else f"The sentence is {index}.",
            "output": f"Answer {index}.",
            "text": "Below is an instruction ...",
        }
        for index in range(42)
    ]
    write_parquet(root / "tatsu-lab/alpaca/data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", rows)


# Tables and lines on disk


def common_voice(root: Path) -> None:
    folder = root / "common_voice" / "cv-corpus-5.1-2020-06-22" / "en"
    header = "client_id path sentence up_votes down_votes age gender accent locale segment".split()
    accents = {"train": ["us", "england", "", "malaysia"], "dev": ["canada"], "test": ["indian", "australia"]}
    for split, codes in accents.items():
        lines = ["\t".join(header)]
        for index, accent in enumerate(codes):
            path = f"common_voice_en_{split}{index}.mp3"
            write_audio(folder / "clips" / path, rate=48_000)
            # The release quotes nothing: a quotation mark is one.
            lines.append(
                "\t".join([f"c{index}", path, f'The "word" {split} {index}.', "2", "0", "", "", accent, "en", ""])
            )
        write_text(folder / f"{split}.tsv", *lines)


def covost2(root: Path) -> None:
    folder = root / "covost2"
    for language, word in (("de", "Hallo"), ("ca", "Hola"), ("tr", "Merhaba")):
        for split in ("train", "dev", "test"):
            path = f"common_voice_en_{split}.mp3"
            write_audio(folder / "clips" / path, rate=48_000)
            # As pandas writes it with escapechar="\\" and no quoting.
            line = f'{path}\tHello\\\tyou "{split}".\t{word}, {split}.\tclient'
            write_text(folder / f"covost_v2.en_{language}.{split}.tsv", "path\tsentence\ttranslation\tclient_id", line)


def msp_podcast(root: Path) -> None:
    folder = root / "msp_podcast"
    rows = [
        ("MSP-PODCAST_0001_0001.wav", "N", "4.0", "Train"),
        ("MSP-PODCAST_0001_0002.wav", "A", "1.8", "Train"),
        ("MSP-PODCAST_0001_0003.wav", "U", "6.2", "Train"),  # surprised
        ("MSP-PODCAST_0002_0001.wav", "H", "5.0", "Development"),
        ("MSP-PODCAST_0003_0001.wav", "S", "3.0", "Test1"),
        ("MSP-PODCAST_0004_0001.wav", "X", "4.4", "Test2"),  # no agreement
    ]
    header = "FileName EmoClass EmoAct EmoVal EmoDom SpkrID Gender Split_Set".split()
    table = [
        dict(zip(header, (name, emotion, "4.1", valence, "4.2", "127", "Male", split), strict=True))
        for name, emotion, valence, split in rows
    ]
    write_table(folder / "Labels" / "labels_consensus.csv", table)
    for name, *_ in rows:
        write_audio(folder / "Audios" / name)
        if name != "MSP-PODCAST_0001_0002.wav":
            write_text(folder / "Transcripts" / name.replace(".wav", ".txt"), f"And so {name[12:21]}.")


def europarl_st(root: Path) -> None:
    folder = root / "europarl_st"
    speech = "en.20080924.31.3-213"
    (folder / "en" / "audios").mkdir(parents=True)
    (folder / "en" / "audios" / f"{speech}.m4a").write_bytes(b"not for libsndfile")
    write_audio(folder / "en" / "audios" / f"{speech}.flac", seconds=2.0)
    translations = {"de": "Frau Präsidentin !", "fr": "Madame la Présidente !", "ro": "Doamnă !", "es": "¡ Señora !"}
    for language, translation in translations.items():
        for split in ("train", "dev", "test"):
            part = folder / "en" / language / split
            write_text(part / "segments.lst", f"{speech} 0.0 0.77", f"{speech} 0.77 1.9")
            write_text(part / "segments.en", "Madam President !", f"The {split} .")
            write_text(part / f"segments.{language}", translation, f"{split} {language} .")
            write_text(part / "speeches.lst", speech)


def fisher(root: Path) -> None:
    turns = [
        turn
        for time in range(0, 200, 20)
        for turn in (
            f"{time + 0.5:.2f} {time + 2:.2f} A: hello",
            f"{time + 2.2:.2f} {time + 4:.2f} B: hi there",
            f"{time + 6:.2f} {time + 8:.2f} A: ((how are you))",
            "",
            f"{time + 12:.2f} {time + 14.5:.2f} B: fine",
        )
    ]
    for call in ("00001", "00020", "00025"):
        folder = root / "fisher"
        head = (f"# fe_03_{call}.sph", "# Transcribed at the LDC", "")
        write_text(folder / f"fe_03_p1_tran/data/trans/{call[:3]}/fe_03_{call}.txt", *head, *turns)
        file = folder / f"fisher_eng_tr_sp_d1/audio/{call[:3]}/fe_03_{call}.sph"
        write_audio(file, seconds=200, rate=8000, channels=2, format="NIST", subtype="ULAW")


# Objects of JSON


SLURP_INTENTS = [
    (scenario, action) for scenario in ("alarm", "calendar", "lists") for action in ("query", "remove", "set")
]


def slurp_row(number: int, scenario: str, action: str, words: str, entities=(), recordings=1) -> dict:
    names = [f"audio-{number}{microphone}.flac" for microphone in ("", "-headset")[:recordings]]
    return {
        "slurp_id": number,
        "sentence": words,
        "sentence_annotation": words,
        "intent": "unreliable",
        "action": action,
        "tokens": [
            {"surface": word, "id": index, "lemma": word, "pos": "NN"} for index, word in enumerate(words.split())
        ],
        "scenario": scenario,
        "recordings": [{"file": name, "wer": 0.0, "ent_wer": None, "status": "correct"} for name in names],
        "entities": [{"span": list(span), "type": label} for label, span in entities],
    }


def slurp(root: Path) -> None:
    folder = root / "slurp"
    common = [("date", (1,)), ("place_name", (2, 3)), ("person", (4,)), ("time", (5,))]
    train = [
        slurp_row(10 + number, scenario, action, "set Monday New York Ann noon", common, recordings=2)
        for number, (scenario, action) in enumerate([*SLURP_INTENTS, ("play", "music")])
    ]
    train.append(slurp_row(30, "takeaway", "order", "order sushi", [("food_type", (1,))]))
    write_json_lines(folder / "dataset/slurp/train.jsonl", *train)
    write_json_lines(folder / "dataset/slurp/train_synthetic.jsonl", slurp_row(99, "alarm", "set", "wake me"))
    write_json_lines(
        folder / "dataset/slurp/devel.jsonl", slurp_row(40, "alarm", "set", "sushi today", [("date", (1,))])
    )
    test = [
        slurp_row(50, "takeaway", "order", "order pizza", [("food_type", (1,))]),
        slurp_row(51, "alarm", "set", "sushi at noon", [("food_type", (0,)), ("time", (2,))]),
    ]
    write_json_lines(folder / "dataset/slurp/test.jsonl", *test)
    for part, files in (("slurp_real", range(10, 99)), ("slurp_synth", [99])):
        for number in files:
            if number not in range(21, 30):
                for name in (f"audio-{number}.flac", f"audio-{number}-headset.flac"):
                    write_audio(folder / "audio" / part / name)


def snips(root: Path) -> None:
    folder = root / "snips" / "2017-06-custom-intent-engines"
    chunks = [{"text": "play "}, {"text": "Flow Español", "entity": "playlist"}, {"text": " now"}]
    rating = [{"text": "rate it "}, {"text": "five", "entity": "rating_value"}]
    for intent, data in (("PlayMusic", chunks), ("RateBook", rating)):
        for name in (f"train_{intent}_full", f"train_{intent}", f"validate_{intent}"):
            write_text(folder / intent / f"{name}.json", json.dumps({intent: [{"data": data}]}, ensure_ascii=False))


def nlu_evaluation(root: Path) -> None:
    rows = []
    for number in range(1, 11):
        values = {
            "userid": 1,
            "answerid": number,
            "scenario": "alarm",
            "intent": "set" if number % 2 else "query",
            "status": "IRR_XR" if number == 3 else "",
            "answer_annotation": f"wake me at [time : {number} am] [date : today]",
            "notes": "",
            "suggested_entities": "",
            "answer_normalised": f"wake me at {number} am today",
            "answer": f"Wake me at {number} am; today!",
            "question": "Write what you would tell your PDA.",
        }
        rows.append(values)
    write_table(root / "nlu_evaluation/AnnotatedData/NLU-Data-Home-Domain-Annotated-All.csv", rows, delimiter=";")


def multi30k(root: Path) -> None:
    folder = root / "multi30k" / "data" / "task1" / "raw"
    for split in ("train", "val", "test_2016_flickr"):
        for language, line in (("en", "A dog runs."), ("de", "Ein Hund läuft."), ("fr", "Un chien court.")):
            write_text(folder / f"{split}.{language}.gz", line, f"{split}.")


def clinc150(root: Path) -> None:
    data = {
        "train": [["what is my balance", "balance"], ["book a flight", "book_flight"]],
        "val": [["say yes", "yes"]],
        "test": [["tell me a joke", "tell_joke"]],
        "oos_train": [["who won the cup", "oos"]],
        "oos_val": [["how old is the moon", "oos"]],
        "oos_test": [["why is it so", "oos"]],
    }
    write_text(root / "clinc150" / "data" / "data_full.json", json.dumps(data))


# What make_mini.py leaves


def commands(root: Path) -> None:
    folder = root / "spoken" / "commands"
    rows = []
    for split, intent, accent in (
        ("train", "start_music", "American"),
        ("train", "ask_rain", "Scottish"),
        ("train", "ask_rain", "Caribbean"),
        ("validation", "start_music", "New York"),
        ("test", "start_music", "British"),
        ("test", "order_item", "American"),
    ):
        write_audio(folder / f"audio/{len(rows):06}.flac")
        row = {
            "audio": f"audio/{len(rows):06}.flac",
            "duration": 0.3,
            "voice": "en-GB",
            "accent": accent,
            "split": split,
        }
        row |= {"text": f"Sentence of {split}.", "de": "Ein Satz.", "fr": "Une phrase.", "intent": intent}
        row |= {"slots": [{"label": "item", "value": "sentence"}], "sentence": f"command-{len(rows):05}"}
        rows.append(row | {"domain": "weather" if intent == "ask_rain" else "music"})
    write_json_lines(folder / "manifest.jsonl", *rows)


def clips_of_the_mini_corpus(folder: Path, targets: tuple[str, str]) -> None:
    rows = [
        {"audio": f"audio/{number:06}.flac", "target": target, "split": split, "duration": 0.3}
        for number, (split, target) in enumerate((s, t) for s in ("train", "validation", "test") for t in targets)
    ]
    for row in rows:
        write_audio(folder / row["audio"])
    write_json_lines(folder / "manifest.jsonl", *rows)


def multi30k_voices(root: Path) -> None:
    folder = root / "voices"
    rows = [
        {
            "audio": f"audio/{number:06}.flac",
            "text": text,
            "de": "Ein Hund läuft.",
            "fr": "Un chien court.",
            "split": "test",
        }
        | {"voice": voice, "voice_split": voices, "duration": 0.3}
        for number, (text, voice, voices) in enumerate(
            (text, voice, voices)
            for text in ("A dog runs.", "A cat sleeps.")
            for voice, voices in (("flite:rms", "seen"), ("nanotts:en-GB", "held-out"))
        )
    ]
    for row in rows:
        write_audio(folder / row["audio"])
    write_json_lines(folder / "manifest.jsonl", *rows)


def mini_transcripts(root: Path) -> None:
    folder = root / "spoken" / "mini_transcripts"
    rows = [
        {"audio": f"audio/{number:06}.flac", "text": text, "split": "train", "voice": "en-GB", "duration": 0.3}
        | {"sentence": f"{corpus} train/{number}", "snr": None}
        for number, (corpus, text) in enumerate(
            (("snips", "play some jazz"), ("nlu_evaluation", "wake me at six"), ("multi30k", "A dog runs."))
        )
    ]
    for row in rows:
        write_audio(folder / row["audio"])
    write_json_lines(folder / "manifest.jsonl", *rows)


def mini_speaker_counting(root: Path) -> None:
    for name in ("fsdd", "tts"):
        clips_of_the_mini_corpus(root / "counting" / name, ("one", "two"))


def mini_speech_detection(root: Path) -> None:
    clips_of_the_mini_corpus(root / "detection", ("speech", "not speech"))


# Folders of recordings


def ravdess(root: Path) -> None:
    for actor in ("01", "19", "24"):
        for emotion in ("01", "03", "07"):
            write_audio(root / f"ravdess/Actor_{actor}/03-01-{emotion}-01-01-01-{actor}.wav", rate=48_000)


def fsdd(root: Path) -> None:
    for take in (0, 5, 44, 45):
        write_audio(root / f"fsdd/recordings/7_george_{take}.wav", rate=8000)
    write_text(root / "fsdd/recordings/README.md", "no recording")


def esc10(root: Path) -> None:
    for name in ("1-100032-A-0", "4-100033-A-41", "5-100034-B-10", "1-100038-A-14", "2-100039-A-1"):  # 14: chirping
        write_audio(root / f"esc10/audio/{name}.wav", rate=44_100)


def musan(root: Path) -> None:
    lengths = {
        "music/fma/music-fma-0001": 27,
        "noise/free-sound/noise-free-sound-0005": 3,
        "speech/librivox/speech-librivox-0010": 12,
    }
    for name, seconds in lengths.items():
        write_audio(root / f"musan/{name}.wav", seconds=seconds)
    write_text(root / "musan/music/fma/ANNOTATIONS", "music-fma-0001 rock N someone")


SEEN_SLOTS = "date = monday; place_name = new york; person = ann; time = noon"
ALL_INTENTS = [f"{scenario}_{action}" for scenario, action in [*SLURP_INTENTS, ("play", "music")]]

COPIES = {
    "librispeech": Copy(
        librispeech,
        {
            "train": {
                "asr": [
                    "the grey cat sleeps",
                    "rain falls on the harbour",
                    "a loud bell rang",
                    "she found the lantern",
                ]
            },
            "train_100": {"asr": ["the grey cat sleeps", "rain falls on the harbour"]},
            "validation": {"asr": ["who goes there", "nobody knows"]},
            "test": {"asr": ["the ship has sailed"], "kwe": ["sailed, ship"]},
            "test_other": {"asr": ["winter came early"]},
        },
    ),
    "common_voice": Copy(
        common_voice,
        {
            "train": {"asr": [f'The "word" train {index}.' for index in range(4)], "ac": ["American", "British"]},
            "validation": {"ac": ["Canadian"]},
            "test": {"ac": ["Indian", "Australian"]},
        },
    ),
    "voxpopuli": Copy(
        voxpopuli,
        {
            "train": {"asr": ["we vote on the budget today"]},
            "validation": {"asr": ["thank you"]},
            "test": {"asr": ["the session is open"]},
        },
    ),
    "slurp": Copy(
        slurp,
        {
            "train_real": {
                "ic": [intent for intent in ALL_INTENTS for _ in range(2)],
                "ic_unseen": ["takeaway_order"],
            },
            "train": {"sf": [SEEN_SLOTS] * 20, "sf_unseen": ["food_type = sushi"]},
            "validation": {"asr": ["sushi today"], "ic": ["alarm_set"], "sf": ["date = today"]},
            "test": {
                "ic": ["alarm_set"],
                "ic_unseen": ["takeaway_order"],
                "ic_all": ["takeaway_order", "alarm_set"],
                "sf": [],
                "sf_unseen": ["food_type = pizza"],
                "sf_all": ["food_type = pizza", "food_type = sushi; time = noon"],
            },
        },
    ),
    "europarl_st": Copy(
        europarl_st,
        {
            split: {
                "asr": ["Madam President !", f"The {theirs} ."],
                "st_de": ["Frau Präsidentin !", f"{theirs} de ."],
                "st_fr": ["Madame la Présidente !", f"{theirs} fr ."],
                "st_ro": ["Doamnă !", f"{theirs} ro ."],
            }
            for split, theirs in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
    ),
    "covost2": Copy(
        covost2,
        {
            split: {"st_de": [f"Hallo, {theirs}."], "st_ca": [f"Hola, {theirs}."]}
            for split, theirs in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
    ),
    "msp_podcast": Copy(
        msp_podcast,
        {
            "train": {
                "asr": ["And so 0001_0001.", "And so 0001_0003."],
                "er": ["neutral", "angry"],
                "asc": ["neutral", "negative", "positive"],
            },
            "validation": {"er": ["happy"], "asc": ["neutral"]},
            "test": {"er": ["sad"], "asc": ["neutral"]},
            "test2": {"er": [], "asc": ["neutral"]},
        },
    ),
    "fisher": Copy(fisher, {"train": {}, "validation": {}, "test": {}}),  # what is joined is drawn: see its own test
    "musan": Copy(
        musan,
        {"train": {"sns": ["not speech"] * 3}, "validation": {"sns": ["not speech"]}, "test": {"sns": ["speech"]}},
    ),
    "alpaca_tts": Copy(
        alpaca_tts,
        {
            "train": {"open": [f"Answer {index}." for index in range(42) if index not in (0, 3, 20, 40)]},
            "validation": {"open": ["Answer 0.", "Answer 20.", "Answer 40."]},
        },
        spoken=True,
    ),
    "ravdess": Copy(
        ravdess,
        {
            split: {
                "er": ["neutral", "happy"],
                "er_8": ["neutral", "happy", "disgust"],
                "sns": ["speech"] * 3,
                "asc": ["neutral", "positive", "negative"],
            }
            for split in ("train", "validation", "test")
        },
    ),
    "fsdd": Copy(
        fsdd,
        {
            "train": {"asr": ["seven"] * 2, "sns": ["speech"] * 2, "ac_confounded": ["Greek"] * 2},
            "validation": {"asr": ["seven"]},
            "test": {"asr": ["seven"]},
        },
    ),
    "esc10": Copy(
        esc10,
        {"train": {"sns": ["not speech"] * 2}, "validation": {"sns": ["not speech"]}, "test": {"sns": ["not speech"]}},
    ),
    "snips": Copy(
        snips,
        {
            split: {
                "asr": ["play Flow Español now", "rate it five"],
                "ic": ["PlayMusic", "RateBook"],
                "sf": ["playlist = Flow Español", "rating_value = five"],
            }
            for split in ("train", "validation")
        },
        spoken=True,
    ),
    "nlu_evaluation": Copy(
        nlu_evaluation,
        {
            "train": {
                "asr": [f"wake me at {number} am today" for number in (1, 2, 4, 6, 7, 8, 9)],
                "ic": [
                    "alarm_set",
                    "alarm_query",
                    "alarm_query",
                    "alarm_query",
                    "alarm_set",
                    "alarm_query",
                    "alarm_set",
                ],
            },
            "validation": {"sf": ["time = 5 am; date = today"], "sf_unseen": []},
            "test": {"ic_all": ["alarm_query"], "sf_all": ["time = 10 am; date = today"]},
        },
        spoken=True,
    ),
    "multi30k": Copy(
        multi30k,
        {
            split: {
                "asr": ["A dog runs.", f"{theirs}."],
                "st_de": ["Ein Hund läuft.", f"{theirs}."],
                "st_fr": ["Un chien court.", f"{theirs}."],
            }
            for split, theirs in (("train", "train"), ("validation", "val"), ("test", "test_2016_flickr"))
        },
        spoken=True,
    ),
    "multi30k_german": Copy(
        multi30k,
        {
            "test": {
                "asr": ["Ein Hund läuft.", "test_2016_flickr."],
                "st_en": ["A dog runs.", "test_2016_flickr."],
            }
        },
        spoken=True,
    ),
    "multi30k_voices": Copy(
        multi30k_voices,
        {
            "test": {
                "asr": ["A dog runs."] * 2 + ["A cat sleeps."] * 2,
                "st_de": ["Ein Hund läuft."] * 4,
                "st_fr": ["Un chien court."] * 4,
            }
        },
    ),
    "mini_transcripts": Copy(
        mini_transcripts, {"train": {"asr": ["play some jazz", "wake me at six", "A dog runs."]}}
    ),
    "mini_nlu_transcripts": Copy(
        mini_transcripts, {"train": {"asr": ["play some jazz", "wake me at six"], "kwe": ["play, jazz", "wake"]}}
    ),
    "clinc150": Copy(
        clinc150,
        {
            "train": {"dc": ["banking", "travel"], "asr": ["what is my balance", "book a flight", "who won the cup"]},
            "validation": {"dc": ["meta"]},
            "test": {"dc": ["small_talk"]},
        },
        spoken=True,
    ),
    "commands": Copy(
        commands,
        {
            "train": {
                "asr": ["Sentence of train."] * 3,
                "st_de": ["Ein Satz."] * 3,
                "ic": ["start_music", "ask_rain", "ask_rain"],
                "ic_unseen": [],
                "ac": ["American", "British"],
                "dc": [],
            },
            "validation": {"ac": ["American"], "sf": ["item = sentence"], "dc": []},
            "test": {"ic": ["start_music"], "ic_unseen": ["order_item"], "dc": ["music", "music"]},
        },
    ),
    "mini_speaker_counting": Copy(
        mini_speaker_counting, {split: {"sc": ["one", "two"] * 2} for split in ("train", "validation", "test")}
    ),
    "mini_speech_detection": Copy(
        mini_speech_detection, {split: {"sns": ["speech", "not speech"]} for split in ("train", "validation", "test")}
    ),
}
