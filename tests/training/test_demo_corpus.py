"""The demo asks about sentences that were not learned from."""

from collections import Counter

from speechverse.training.demo_corpus import ACCENTS, ROOMS, WISHES, demo_sentences


def test_thirty_balanced_sentences_are_held_out():
    rows = demo_sentences()
    train = {row["text"] for row in rows if row["split"] == "train"}
    test = [row for row in rows if row["split"] == "test"]
    assert len(test) == 30 and len(train) == 186
    assert not train & {row["text"] for row in test}
    for kind, values in (("wish", WISHES), ("room", ROOMS)):
        assert Counter(row[kind] for row in test) == dict.fromkeys(values, 5)
    assert sorted(Counter(row["accent"] for row in test).values()) == [14, 16] and len(ACCENTS) == 2


def test_no_answer_gives_another_away():
    """Every room goes with every wish, every accent with every room: none can be guessed from another."""
    train = [row for row in demo_sentences() if row["split"] == "train"]
    for first, second in (("wish", "room"), ("room", "accent"), ("wish", "accent")):
        counts = Counter((row[first], row[second]) for row in train)
        assert len(counts) == len({row[first] for row in train}) * len({row[second] for row in train})
        assert max(counts.values()) <= 1.5 * min(counts.values())
