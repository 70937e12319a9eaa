"""Derived labels, by hand and by their properties."""

import random
from collections import Counter

import pytest
from corpus_copies import write_audio

from speechverse.training.data.derivations import DERIVATIONS, build_derivation, needed
from speechverse.training.data.derivations.keywords import Keywords, occurs
from speechverse.training.data.rows import RejectedRow


def apply(name, rows, train=None, **arguments):
    """The rows that come out of a derivation."""
    derivation = build_derivation({name: arguments}, "derive[0]")
    rows = [row if isinstance(row, RejectedRow) else {"key": f"k{index}"} | row for index, row in enumerate(rows)]
    return list(derivation.apply(iter(rows), lambda: iter(rows if train is None else train)))


def column(name, values, **arguments):
    """What a derivation makes of one column's values."""
    rows = apply(name, [{"x": value} for value in values], column="x", into="made", **arguments)
    return [row["made"] for row in rows]


# Row by row


@pytest.mark.parametrize(
    "valence, sentiment",
    [
        (1, "negative"),
        (2.99, "negative"),
        ("3.0", "neutral"),
        ("3.01", "neutral"),
        (4, "neutral"),
        ("5", "neutral"),
        ("5.000001", "positive"),
        (7, "positive"),
        ("", None),
        (None, None),
    ],
)
def test_valence_is_cut_at_three_and_five(valence, sentiment):
    labels = ["negative", "neutral", "positive"]
    assert column("bins", [valence], cuts=[3, 5], labels=labels) == [sentiment]


def test_number_that_is_none_rejects_the_row():
    [row] = apply("bins", [{"x": "high"}], column="x", cuts=[3], labels=["a", "b"])
    assert isinstance(row, RejectedRow) and row.key == "k0" and row.reason.startswith("Bins of x: ")


def test_label_that_several_parts_give_alike():
    labels = {"American": ["us", "united states english"], "British": "england.*"}
    given = ["us", "US ", "United States English,Midwestern", "us,England English", "Dutch", "", None, "not us"]
    found = column("match_labels", given, labels=labels, separator=",")
    assert found == ["American", "American", "American", None, None, None, None, None]


def test_lower_case():
    assert column("lowercase", ["THE CAT'S", None]) == ["the cat's", None]


def test_text_beside_a_recording(tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "audio").mkdir()
    (tmp_path / "words" / "one.txt").write_text("  Well,\n hello. ")
    audio = [str(tmp_path / "audio" / f"{name}.wav") for name in ("one", "two")]
    assert column("text_beside", audio, folder="../words") == ["Well, hello.", None]


def test_slots_of_slurp_are_lower_cased_tokens():
    tokens = [{"id": index, "surface": word} for index, word in enumerate("Play U2 's Best songs".split())]
    entities = [{"span": [1, 2], "type": "artist"}, {"span": [4], "type": "item"}]
    [row] = apply("token_slots", [{"tokens": tokens, "entities": entities}])
    assert row["slots"] == [{"label": "artist", "value": "u2 's"}, {"label": "item", "value": "songs"}]
    [row] = apply("token_slots", [{"tokens": tokens, "entities": [{"span": [9], "type": "item"}]}])
    assert isinstance(row, RejectedRow)


@pytest.mark.parametrize(
    "annotation, text, slots",
    [
        ("wake me", "wake me", []),
        (
            "at [time : five am] on [date:  today ] .",
            "at five am on today .",
            [("time", "five am"), ("date", "today")],
        ),
    ],
)
def test_slots_in_brackets(annotation, text, slots):
    [row] = apply("bracket_slots", [{"a": annotation}], column="a")
    assert row["text"] == text
    assert [(slot["label"], slot["value"]) for slot in row["slots"]] == slots


def test_slots_of_snips_are_chunks():
    chunks = [{"text": "play "}, {"text": "Flow\nEspañol ", "entity": "playlist"}, {"text": "now"}]
    [row] = apply("chunk_slots", [{"c": chunks}], column="c")
    assert row["text"] == "play Flow Español now" and row["slots"] == [{"label": "playlist", "value": "Flow Español"}]


# Seen and unseen


def test_most_frequent_classes_are_seen():
    train = [{"x": label} for label in "aaaabbbcccd"]
    rows = apply(
        "seen_unseen", [{"x": label} for label in "abcde"], train, column="x", most_frequent=2, into="g", classes="l"
    )
    assert [row["g"] for row in rows[:4]] == ["seen", "seen", "unseen", "unseen"]  # b goes before c by the alphabet
    assert rows[0]["l"] == ["a", "b"] and rows[2]["l"] == ["c", "d"]
    assert rows[4] == RejectedRow("k4", "unknown class: x e is not in training")


def test_every_unseen_row_has_the_same_list():
    train = [{"x": label} for label in "aaabbc"]
    rows = apply("seen_unseen", [{"x": x} for x in "abcde"], train, column="x", most_frequent=1, into="g", classes="l")
    unseen = [row["l"] for row in rows if isinstance(row, dict) and row["g"] == "unseen"]
    assert unseen == [["b", "c"]] * 2


def test_slots_are_seen_unseen_or_mixed():
    def slots(labels):
        return {"x": [{"label": label, "value": "v"} for label in labels]}

    train = [slots("ab"), slots("a"), slots("bc")]
    rows = apply(
        "seen_unseen",
        map(slots, ["ab", "a", "c", "ac", ""]),
        train,
        column="x",
        most_frequent=2,
        into="g",
        classes="l",
    )
    assert [row["g"] for row in rows] == ["seen", "seen", "unseen", "mixed", "none"]
    assert rows[0]["l"] == ["a", "b"] and rows[2]["l"] == ["c"] and rows[3]["l"] == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(5))
def test_seen_and_unseen_are_disjoint_and_by_frequency(seed):
    draw = random.Random(seed)
    rows = [{"x": f"c{int(draw.expovariate(0.1))}"} for _ in range(2000)]
    out = apply("seen_unseen", rows, column="x", most_frequent=10, into="g", classes="l")
    counts = Counter(row["x"] for row in rows)
    groups = {group: {row["x"] for row in out if row["g"] == group} for group in ("seen", "unseen")}
    assert len(groups["seen"]) == 10 and not groups["seen"] & groups["unseen"]
    assert groups["seen"] | groups["unseen"] == counts.keys()
    assert min(counts[label] for label in groups["seen"]) >= max(counts[label] for label in groups["unseen"])


def test_training_without_the_column_is_an_error():
    with pytest.raises(ValueError, match="no row of the training split has x"):
        apply("seen_unseen", [{"x": "a"}], [], column="x", most_frequent=1, into="g", classes="l")


# Keywords


SENTENCES = [
    f"the {a} {n} {v} near the {p}"
    for a in ("red", "old", "quiet")
    for n in ("lantern", "sailor", "engine", "garden")
    for v in ("waits", "sleeps", "burns")
    for p in ("harbour", "station", "mountain")
]


def test_keywords_stand_in_the_text_and_are_the_same_every_time():
    rows = apply("keywords", [{"text": text.title() + "!"} for text in SENTENCES], column="text")
    assert rows == apply("keywords", [{"text": text.title() + "!"} for text in SENTENCES], column="text")
    for row, text in zip(rows, SENTENCES, strict=True):
        assert 1 <= len(row["keywords"]) <= 3
        for keyword in row["keywords"]:
            assert occurs(keyword, text) and keyword == keyword.lower() and keyword not in ("the", "near")


@pytest.mark.parametrize("text, keywords", [("", []), ("the and of it", []), (None, None)])
def test_text_without_keywords(text, keywords):
    assert apply("keywords", [{"text": text}], column="text")[0]["keywords"] == keywords


def test_keywords_without_the_library_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yake", None)
    with pytest.raises(ImportError, match=r"pip install \"speechverse\[data\]\""):
        Keywords(column="text").value("some text")


@pytest.mark.parametrize(
    "keyword, text, there",
    [
        ("cat", "The CAT sleeps.", True),
        ("cat", "cats sleep", False),
        ("new york", "in New-York today", True),
        ("york new", "in new york", False),
        ("straße", "die STRASSE", True),
        ("don't", "I don't know", True),
        ("don", "I don't know", False),
    ],
)
def test_occurrence_is_of_whole_words(keyword, text, there):
    assert occurs(keyword, text) is there


def searches(number=4000, seed=0):
    draw = random.Random(1)
    rows = []
    for index in range(number):
        text = draw.choice(SENTENCES)
        words = [word for word in text.split() if word not in ("the", "near")]
        rows.append({"key": f"k{index}", "text": text, "keywords": draw.sample(words, 2)})
    return apply("keyword_search", rows, seed=seed)


def test_keyword_is_there_seven_times_in_ten():
    rows = searches()
    present = sum(row["keyword_present"] == "yes" for row in rows)
    assert abs(present - 2800) < 4 * (4000 * 0.7 * 0.3) ** 0.5  # exceeded by chance once in 16,000
    assert all(row["keyword_present"] in ("yes", "no") for row in rows)


def test_answer_is_true():
    for row in searches():
        assert occurs(row["keyword"], row["text"]) is (row["keyword_present"] == "yes")
        if row["keyword_present"] == "yes":
            assert row["keyword"] in row["keywords"]


def test_negative_is_not_even_part_of_a_word():
    rows = [{"text": "cats", "keywords": ["cats"]}, {"text": "cat", "keywords": ["cat"]}] * 50
    for row in apply("keyword_search", rows):
        assert (row["keyword_present"], row["text"]) != ("no", "cats")  # `cat` stands within `cats`


def test_search_is_a_function_of_seed_and_key():
    assert searches() == searches()
    assert searches() != searches(seed=1)
    some = {row["key"]: row["keyword_present"] for row in searches(1500)}  # the pool ends elsewhere
    assert all(row["keyword_present"] == some[row["key"]] for row in searches()[:1500])


def zipf_corpus(number=6000, types=3000, seed=0):
    """Rows with words as frequent as in a language, each with three of its own words as keywords."""
    draw = random.Random(seed)
    weights = [1 / (rank + 5) for rank in range(types)]
    rows = []
    for index in range(number):
        words = list(dict.fromkeys(draw.choices(range(types), weights, k=9)))
        text = " ".join(f"w{word:04d}" for word in words)
        rows.append({"key": f"k{index}", "text": text, "keywords": draw.sample(text.split(), min(3, len(words)))})
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_keyword_alone_does_not_tell_the_answer(seed):
    rows = zipf_corpus()
    frequency = Counter(keyword for row in rows for keyword in row["keywords"])
    answers = {}
    for row in apply("keyword_search", rows, seed=seed):
        answers.setdefault(min(frequency[row["keyword"]].bit_length(), 9), []).append(row["keyword_present"] == "yes")
    assert len(answers) >= 6
    for found in answers.values():
        assert abs(sum(found) / len(found) - 0.7) < 0.01 + 4 * (0.7 * 0.3 / len(found)) ** 0.5


def test_text_without_keywords_is_asked_nothing():
    rows = [{"text": f"a{index}", "keywords": [f"a{index}"] if index % 2 else []} for index in range(200)]
    for index, row in enumerate(apply("keyword_search", rows)):
        assert (row["keyword_present"] is None) is (index % 2 == 0)


def test_draws_that_depend_on_other_rows_are_stored_in_shards():
    assert DERIVATIONS["keyword_search"].bound


def test_repeated_text_is_searched_for_keywords_once():
    searched = []

    class Extractor:
        def extract_keywords(self, text):
            searched.append(text)
            return [("lantern", 0.1)]

    keywords = Keywords(column="text")
    keywords.__dict__["extractor"] = Extractor()
    assert [keywords.value("the lantern") for _ in range(3)] == [["lantern"]] * 3
    keywords.value("the lantern").append("changed")
    assert keywords.value("the lantern") == ["lantern"] and searched == ["the lantern"]


def test_row_without_a_fitting_keyword_has_none():
    rows = apply("keyword_search", [{"text": "oh", "keywords": []} for _ in range(20)])
    assert {(row["keyword"], row["keyword_present"]) for row in rows} == {(None, None)}


# Stretches


def turns(*given):
    rows = [{"audio": "a.wav", "speaker": who, "start": str(start), "end": str(end)} for start, end, who in given]
    return apply("speaker_count", rows, seed=0)


def simulated_turns(seed, number=200):
    draw, time, given, who = random.Random(seed), 0.0, [], "A"
    for _ in range(number):
        start = max(0.0, time + draw.uniform(-1.0, 1.5))
        time = start + draw.lognormvariate(0.8, 0.7)
        who = draw.choice("AB") if draw.random() < 0.5 else {"A": "B", "B": "A"}[who]
        given.append((start, time, who))
    return given


def test_stretches_are_matched_and_of_one_length():
    rows = turns(*simulated_turns(0))
    lengths = {
        kind: sorted(round(row["end"] - row["start"], 6) for row in rows if row["speakers"] == kind)
        for kind in ("one", "two")
    }
    assert lengths["one"] == lengths["two"] and len(set(lengths["one"])) == len(lengths["one"]) > 5


def test_length_does_not_tell_the_number_of_speakers():
    lengths = {"one": [], "two": []}
    for seed in range(20):
        for row in turns(*simulated_turns(seed)):
            lengths[row["speakers"]].append(row["end"] - row["start"])
    above = [(two > one) + 0.5 * (two == one) for one in lengths["one"] for two in lengths["two"]]
    assert min(map(len, lengths.values())) > 200 and abs(sum(above) / len(above) - 0.5) < 0.05


def test_stretches_of_both_kinds_begin_and_end_within_turns():
    given = [turn for seed in range(10) for turn in simulated_turns(seed)]
    starts, ends = {start for start, _, _ in given}, {end for _, end, _ in given}
    cut = {"one": [], "two": []}
    for seed in range(10):
        for row in turns(*simulated_turns(seed)):
            cut[row["speakers"]].append(row["start"] not in starts and row["end"] not in ends)
    assert all(sum(found) / len(found) > 0.9 for found in cut.values())


def test_conversation_of_one_speaker_gives_nothing_to_count():
    assert turns((0, 2, "A"), (2.5, 3, "A"), (8, 10, "A"), (20, 60, "A")) == []


def test_stretch_of_one_speaker_may_be_of_two_turns():
    given = [
        turn
        for time in range(0, 2000, 20)
        for turn in ((time, time + 2, "A"), (time + 2.5, time + 5, "AB"[time % 40 > 0]))
    ]
    joined = Counter(row["speakers"] for row in turns(*given) if row["start"] % 20 < 2 and row["end"] % 20 > 2.5)
    assert joined["one"] > 5 and joined["two"] > 5


@pytest.mark.parametrize("seed", range(20))
def test_stretches_hold_the_speakers_that_they_say(seed):
    given = simulated_turns(seed)
    rows = turns(*given)
    kinds = Counter(row["speakers"] for row in rows)
    assert kinds["one"] == kinds["two"] > 5
    previous = 0.0
    for row in rows:
        heard = {who for start, end, who in given if start < row["end"] and end > row["start"]}
        assert len(heard) == {"one": 1, "two": 2}[row["speakers"]]
        assert 1 <= row["end"] - row["start"] <= 30 and row["start"] >= previous
        previous = row["end"]


def test_conversations_are_kept_apart():
    given = simulated_turns(1)
    rows = [
        {"audio": name, "speaker": who, "start": str(start), "end": str(end), "key": f"{name} {index}"}
        for name in ("a.wav", "b.wav")
        for index, (start, end, who) in enumerate(given)
    ]
    bad = {"audio": "b.wav", "speaker": "B", "start": "soon", "end": "2"}
    out = apply("speaker_count", [*rows[: len(given)], RejectedRow("k", "broken"), *rows[len(given) :], bad])
    good = [row for row in out if isinstance(row, dict)]
    assert {row["audio"] for row in good} == {"a.wav", "b.wav"} and all(
        row["key"].startswith(row["audio"]) for row in good
    )
    assert [row.reason for row in out if isinstance(row, RejectedRow)] == ["broken", "no times: start 'soon', end '2'"]


@pytest.mark.parametrize(
    "seconds, pieces",
    [(4, [(0, 4)]), (10, [(0, 10)]), (14, [(0, 10)]), (16, [(0, 10), (10, 16)]), (24.5, [(0, 10), (10, 20)])],
)
def test_long_recordings_are_cut(seconds, pieces, tmp_path):
    write_audio(tmp_path / "a.wav", seconds=seconds, rate=1000)
    rows = apply("windows", [{"audio": str(tmp_path / "a.wav")}, {"audio": str(tmp_path / "gone.wav")}], seconds=10)
    assert [(row["start"], row["end"]) for row in rows[:-1]] == pieces
    assert rows[0]["key"] == "k0-0" and rows[-1].reason.startswith("unreadable")


# Entries


def test_only_what_is_asked_for_is_derived():
    entries = [
        {"lowercase": {"column": "text"}},
        {"keywords": {"column": "text"}},
        "keyword_search",
        {"bins": {"column": "valence", "cuts": [3], "labels": ["low", "high"]}},
        {"windows": {"seconds": 10}},
    ]
    derivations = [build_derivation(entry, "derive") for entry in entries]

    def names(*columns):
        return [type(derivation).__name__ for derivation in needed(derivations, set(columns))]

    assert names("text") == ["Lowercase", "Windows"]  # windows make other rows: they are always needed
    assert names("keyword") == ["Lowercase", "Keywords", "KeywordSearch", "Windows"]
    assert names("valence") == ["Bins", "Windows"]


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"bins": {}, "keywords": {}}, "it is a name, or a mapping of one name"),
        ({"bins": {"column": "x", "cuts": [5, 3], "labels": ["a", "b", "c"]}}, "bins needs ascending cuts"),
        ({"bins": {"column": "x", "cuts": [3], "labels": ["a"]}}, "one label more than cuts"),
        ({"lowercase": {"columns": "x"}}, "unknown key columns"),
        ({"keyword_search": {"share": True}}, "key share is True; it should be a number"),
    ],
)
def test_wrong_entries_are_refused(entry, message):
    with pytest.raises(ValueError, match=rf"^derive\[0\].*{message}"):
        build_derivation(entry, "derive[0]")


@pytest.mark.parametrize("name", DERIVATIONS)
def test_rejected_rows_go_through(name):
    arguments = {
        "bins": {"column": "x", "cuts": [], "labels": ["a"]},
        "match_labels": {"column": "x", "labels": {}},
        "text_beside": {},
        "seen_unseen": {"column": "x", "most_frequent": 1, "into": "g", "classes": "l"},
        "windows": {"seconds": 1},
    }.get(name, {"column": "x"} if name not in ("token_slots", "keyword_search", "speaker_count") else {})
    rejected = RejectedRow("k", "broken")
    assert apply(name, [rejected], [{"x": "a"}], **arguments) == [rejected]
