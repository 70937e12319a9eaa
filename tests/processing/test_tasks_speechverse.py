"""The task bank: YAML in, JSON along with the checkpoint, prompts to fill in, words to answers and back."""

import itertools
import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from speechverse import Task, TaskBank, processing
from speechverse.processing import tasks_speechverse
from speechverse.processing.tasks_speechverse import JointTask, ParsedAnswer


settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

SHIPPED_FOLDER = Path(processing.__file__).parent / "tasks"
SHIPPED = TaskBank.from_yaml(SHIPPED_FOLDER)
IDS = ["ac", "asc", "asr", "er", "ic", "kwe", "kws", "open", "sc", "sf", "sns", "st"]
FIELDS = {"kws": ["keyword"], "st": ["language"]}
METRICS = {
    "asr": "wer",
    "st": "bleu",
    "ic": "accuracy",
    "sf": "slu_f1",
    "kwe": "keyword_f1",
    "kws": "accuracy",
    "open": None,
} | dict.fromkeys(("ac", "asc", "er", "sc", "sns"), "uar")
VALUES = {"keyword": "radio", "language": "German"}
LABELLED = [task for task in SHIPPED if task.labels]
UNKNOWN_TO_T5 = set("{}~\\^<`\n")  # its tokenizer makes <unk> of them

MOOD = Task(
    "mood", "mood-of-speaker", "Mood", ["How does it sound?"], {"happy": "glad", "not happy": "everything else"}
)
NOTE = Task("note", "note-taking", "Note", ["Write it down.", "Note this."])
FIND = Task(
    "find",
    "word-finding",
    "Found",
    ['Is "{word}" said? {labels}', "Anything?"],
    {"yes": "it is", "no": "it is not", "unsure": ""},
    held_out_prompts=["{word}, {labels}?"],
)
WISH = Task("wish", "wish-finding", "Wish", ["Wishes?"], {"drink_type": "", "time": ""}, answer_type="slots")
WORDS = Task("words", "word-picking", "Words", ["Words?"], answer_type="keywords")

YAML = """
id: mood
name: mood-of-speaker
tag: Mood
prompts:
  - How does it sound?
labels:
  happy: glad
  not happy: everything else
"""

every_shipped = pytest.mark.parametrize("task", SHIPPED, ids=lambda task: task.id)
every_labelled = pytest.mark.parametrize("task", LABELLED, ids=lambda task: task.id)


@pytest.fixture
def bank():
    return TaskBank([MOOD, NOTE])


def yaml_folder(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def plain(prompt: str) -> str:
    """What is left of a prompt beside case and punctuation."""
    return " ".join(re.findall(r"\w+", prompt.casefold()))


def shipped_texts(task):
    """All of a task's text that a model may be given."""
    for prompt in task.prompts + task.held_out_prompts:
        for describe in (False, True) if task.labels else (False,):
            yield task.instruction(prompt, describe=describe, **VALUES)
    yield from task.labels


# The shipped tasks


def test_the_tasks_of_the_paper_are_shipped():
    assert [task.id for task in SHIPPED] == sorted(file.stem for file in SHIPPED_FOLDER.glob("*.yaml")) == IDS
    assert {task.id: task.metric for task in SHIPPED} == METRICS
    assert {task.id: task.fields for task in SHIPPED if task.fields} == FIELDS
    assert {task.id: task.answer_type for task in SHIPPED if task.answer_type not in ("text", "label")} == {
        "kwe": "keywords",
        "sf": "slots",
    }
    assert {task.id: len(task.labels) for task in LABELLED} == {
        "ac": 5,
        "asc": 3,
        "er": 4,
        "ic": 68,
        "kws": 2,
        "sc": 2,
        "sf": 55,
        "sns": 2,
    }
    assert len({task.tag.casefold() for task in SHIPPED}) == len(IDS)


@every_shipped
def test_there_are_prompts_to_train_on_and_others_to_test_with(task):
    assert len(task.prompts) >= 30 and len(task.held_out_prompts) >= 5
    for prompt in task.prompts + task.held_out_prompts:
        assert prompt == " ".join(prompt.split()) != ""


def test_no_two_shipped_prompts_are_alike():
    """Not within a task, not between training and held-out, and not from task to task."""
    prompts = [plain(prompt) for task in SHIPPED for prompt in task.prompts + task.held_out_prompts]
    assert sorted(prompts) == sorted(set(prompts))


def test_no_shipped_prompt_is_nearly_another():
    """Most of the words of each are not those of any other one of its task."""
    for task in SHIPPED:
        prompts = [frozenset(plain(prompt).split()) for prompt in task.prompts + task.held_out_prompts]
        for one, other in itertools.combinations(prompts, 2):
            assert len(one & other) / len(one | other) < 0.6, (sorted(one), sorted(other))


def test_no_article_stands_before_what_is_filled_in():
    """It would not fit: a alarm_type, a English translation."""
    for task in SHIPPED:
        for prompt in task.prompts + task.held_out_prompts:
            assert not re.search(r"\ban? \{", prompt), prompt


@every_shipped
def test_every_prompt_says_by_itself_what_the_answer_may_be(task):
    for prompt in task.prompts + task.held_out_prompts:
        assert ("{labels}" in prompt) == bool(task.labels), prompt
        assert all(prompt.count(f"{{{name}}}") == 1 for name in FIELDS.get(task.id, [])), prompt
        if task.answer_type == "keywords":
            assert "comma" in prompt.casefold(), prompt
        if task.answer_type == "slots":
            assert " = " in prompt and "none" in prompt.casefold() and ("; " in prompt or "semicolon" in prompt), (
                prompt
            )


@every_labelled
def test_labels_are_described_in_one_line(task):
    for label, description in task.labels.items():
        assert label == label.strip() and description == " ".join(description.split()) != ""
        assert len(description.split()) <= 12 and not description.endswith("."), description


@every_shipped
def test_shipped_text_has_no_character_that_t5_does_not_know(task):
    for text in shipped_texts(task):
        assert not UNKNOWN_TO_T5 & set(text) and text.isascii(), text
    assert not UNKNOWN_TO_T5 & set(SHIPPED.joint(IDS).instruction(**VALUES))


@every_shipped
def test_t5_reads_every_shipped_text_and_writes_every_label(task, flan_t5_small):
    tokenizer = AutoTokenizer.from_pretrained(flan_t5_small)
    for text in shipped_texts(task):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text
    for label in task.labels:
        assert tokenizer.decode(tokenizer(label).input_ids, skip_special_tokens=True) == label
    for prompt in task.prompts + task.held_out_prompts:
        assert len(tokenizer(task.instruction(prompt, **VALUES)).input_ids) < 450, prompt


# Prompts


def test_prompt_is_filled_in():
    assert FIND.fields == ["word"] and NOTE.fields == []
    assert FIND.instruction(word="tea") == 'Is "tea" said? yes, no or unsure'
    assert FIND.instruction("{word}, {labels}?", word="{tea}") == "{tea}, yes, no or unsure?"
    assert FIND.instruction("Anything?", word="passed over") == "Anything?"
    assert NOTE.instruction() == "Write it down." and NOTE.instruction("Note this.") == "Note this."


def test_task_may_leave_its_classes_to_whoever_asks():
    domain = Task("domain", "domain-classification", "Domain", ["Which domain: {labels}?"])
    assert domain.answer_type == "label"
    assert domain.instruction(labels=["banking", "travel"]) == "Which domain: banking or travel?"
    assert domain.parse("Travel.", ["banking", "travel"]) == ("travel", [])
    assert domain.parse("Travel.") == (None, ["Travel."])


@pytest.mark.parametrize(
    "labels, describe, listed",
    [
        (None, None, "yes, no or unsure"),
        (None, True, "yes (it is); no (it is not); or unsure"),
        (["a"], None, "a"),
        (["a", "b"], True, "a or b"),
        (("a", "b", "c"), None, "a, b or c"),
        ({"a": "first", "b": "second"}, None, "a (first); or b (second)"),
        ({"a": "first"}, None, "a (first)"),
        ({"a": "first", "b": "second"}, False, "a or b"),
        ({"a": "", "b": ""}, None, "a or b"),
    ],
)
def test_classes_are_listed_with_or_without_descriptions(labels, describe, listed):
    assert FIND.instruction("{labels}", labels=labels, describe=describe) == listed


@pytest.mark.parametrize(
    "task, arguments, message",
    [
        (FIND, {}, "Task 'find' needs word, as text: 'Is"),
        (FIND, {"word": ""}, "Task 'find' needs word, as text"),
        (FIND, {"word": 5}, "Task 'find' needs word, as text"),
        (SHIPPED["kws"], {}, "Task 'kws' needs keyword, as text"),
        (SHIPPED["st"], {"lang": "German"}, "Task 'st' needs language, as text"),
        (MOOD, {"labels": ["a", "b"]}, r"Task 'mood' takes no other labels: 'How does it sound\?'"),
        (FIND, {"word": "tea", "labels": "ab"}, "labels are 'ab', not a list of texts"),
        (FIND, {"word": "tea", "labels": []}, r"labels are \[\], not a list"),
        (FIND, {"word": "tea", "labels": [1, 2]}, r"labels are \[1, 2\], not a list of texts"),
        (FIND, {"word": "tea", "labels": ["a b", "a_b"]}, "cannot be told apart: a b, a_b"),
        (Task("a", "b", "c", ["{labels}?"]), {}, "'a' has no labels of its own"),
    ],
)
def test_what_a_prompt_lacks_is_named(task, arguments, message):
    with pytest.raises(ValueError, match=message):
        task.instruction(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prompts": []}, "'new' has no prompts"),
        ({"prompts": ["what { is it"]}, "brace without a partner"),
        ({"held_out_prompts": ["what } is it"]}, "brace without a partner"),
        ({"prompts": ["is it {}?"]}, "asks for ''; in braces stands a plain name"),
        ({"prompts": ["is it {a b}?"]}, "asks for 'a b'"),
        ({"prompts": ["is it {word.upper}?"]}, "asks for 'word.upper'"),
        ({"prompts": ["is it {word!r}?"]}, "asks for 'word'; in braces"),
        ({"prompts": ["is it {word:>{width}}?"]}, "asks for 'word'; in braces"),
        ({"prompts": ["is it in {audio}?"]}, "asks for 'audio', which has a meaning of its own"),
        ({"answer_type": "list"}, "answer_type 'list'; it is one of text, label, keywords, slots"),
        ({"answer_type": "label"}, "answers with a label, but has no labels"),
        ({"labels": {"a b": "", "A-B": ""}}, "labels that cannot be told apart: a b, A-B"),
        ({"labels": {"?": ""}}, "labels that cannot be told apart"),
    ],
)
def test_task_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(**({"id": "new", "name": "n", "tag": "N", "prompts": ["What?"]} | arguments))


# Words to answers


@pytest.mark.parametrize(
    "text, answer",
    [
        ("happy", "happy"),
        ("Happy.", "happy"),
        ("  HAPPY!\n", "happy"),
        ('"not happy"', "not happy"),
        ("Not_happy", "not happy"),
        ("not   happy?", "not happy"),
        ("unhappy", None),
        ("happy happy", None),
        ("The speaker is happy.", None),
        ("", None),
        ("...", None),
    ],
)
def test_label_is_read_from_the_text(text, answer):
    assert MOOD.parse(text) == (answer, [text] if answer is None and text else [])


def test_labels_of_every_script_are_told_apart():
    """The vowel signs of Devanagari are no letters, but not punctuation either."""
    task = Task("a", "b", "c", ["{labels}?"])
    assert task.parse(" का। ", ["का", "की"]).answer == "का"
    assert task.parse("Cafe\u0301", ["Café", "Thé"]).answer == "Café"


def test_other_labels_are_read_in_place_of_the_tasks_own():
    assert MOOD.parse("calm", ["calm", "upset"]) == ("calm", [])
    assert MOOD.parse("happy", ["calm", "upset"]) == (None, ["happy"])
    assert WISH.parse("size = big", {"size": "how big"}) == ([{"label": "size", "value": "big"}], [])


def test_labels_are_prepared_once_for_all_samples(monkeypatch):
    keyed = []
    original = tasks_speechverse._key
    monkeypatch.setattr(tasks_speechverse, "_key", lambda text: keyed.append(text) or original(text))
    task = Task("own", "own-labels", "Own", ["{labels}?"], {"left": "", "right": ""})
    others = ["up", "down"]
    for _ in range(3):
        assert (task.format("left"), task.parse("Up.", others)) == ("left", ("up", []))
    assert [keyed.count(label) for label in ("right", "down")] == [1, 1]
    others[1] = "across"
    assert task.parse("across", others) == ("across", [])
    task.labels["middle"] = ""
    assert task.parse("Middle") == ("middle", [])


def test_free_text_is_the_answer_itself():
    assert NOTE.parse("  Buy milk, and Bread.\n") == ("Buy milk, and Bread.", [])
    assert NOTE.parse(" ") == ("", [])


@pytest.mark.parametrize(
    "text, keywords, unread",
    [
        ("rain, umbrella", ["rain", "umbrella"], []),
        (" rain ,, New  York ,", ["rain", "New York"], []),
        ("Rain, rain, RAIN", ["Rain"], []),
        ("none", [], []),
        ("None.", [], []),
        ("", None, []),
        (" , ", None, [","]),
        ("rain, umbrella.", ["rain", "umbrella"], []),
        ("rain, 5.", ["rain", "5"], []),
        ("St. Ives, half past 5 p.m.", ["St. Ives", "half past 5 p.m."], []),
        ("Ann B.", ["Ann B."], []),
        ("wait...", ["wait..."], []),
        ("rain.,", ["rain."], []),
        (".", ["."], []),
    ],
)
def test_keywords_are_read_from_the_text(text, keywords, unread):
    assert WORDS.parse(text) == (keywords, unread)


@pytest.mark.parametrize(
    "text, slots, unread",
    [
        ("drink_type = tea; time = five", [("drink_type", "tea"), ("time", "five")], []),
        ("Drink type=tea ;TIME= half past five.;", [("drink_type", "tea"), ("time", "half past five.")], []),
        ("time = a = b", None, ["time = a = b"]),
        ("time = five | drink_type = tea", None, ["time = five | drink_type = tea"]),
        ("drink_type = tea; time = five |", [("drink_type", "tea")], ["time = five |"]),
        ("drink_type = tea.; time = today.", [("drink_type", "tea."), ("time", "today")], []),
        ("time = five p.m.", [("time", "five p.m.")], []),
        ("time = .", [("time", ".")], []),
        ("time = five; time = six", [("time", "five"), ("time", "six")], []),
        ("colour = red; time = five", [("time", "five")], ["colour = red"]),
        ("drink_type tea; time = five", [("time", "five")], ["drink_type tea"]),
        ("time = ; = five", None, ["time =", "= five"]),
        ("tea at five", None, ["tea at five"]),
        ("none", [], []),
        ("None.", [], []),
        ("", None, []),
        (";", None, []),
    ],
)
def test_slots_are_read_from_the_text(text, slots, unread):
    if slots is not None:
        slots = [{"label": label, "value": value} for label, value in slots]
    assert WISH.parse(text) == (slots, unread)


def test_slots_without_a_set_of_labels_are_read_as_they_are():
    task = Task("any", "any-slots", "Any", ["Slots?"], answer_type="slots")
    assert task.parse("Size = big; =x") == ([{"label": "Size", "value": "big"}], ["=x"])


@pytest.mark.parametrize(
    "task, answer",
    [
        (MOOD, "Happy"),
        (MOOD, "sad"),
        (MOOD, None),
        (MOOD, ["happy"]),
        (NOTE, " a"),
        (NOTE, 5),
        (WORDS, ["a, b"]),
        (WORDS, ["a", "A"]),
        (WORDS, ["none"]),
        (WORDS, ["a", "rain."]),
        (WORDS, [""]),
        (WORDS, "ab"),
        (WORDS, [1, 2]),
        (WISH, [{"label": "size", "value": "big"}]),
        (WISH, [{"label": "time", "value": "five; six"}]),
        (WISH, [{"label": "time", "value": "five | six"}]),
        (WISH, [{"label": "time", "value": "a = b"}]),
        (WISH, [{"label": "time", "value": "today."}]),
        (WISH, [{"label": "time", "value": ""}]),
        (WISH, [{"label": "time"}]),
        (WISH, "time"),
    ],
)
def test_answer_that_could_not_be_read_back_is_not_written(task, answer):
    with pytest.raises(ValueError, match=f"Task '{task.id}': .* is no {task.answer_type} answer that can be written"):
        task.format(answer)


# Answers to words and back, for every shipped task

# Free values: words of any script, with what stands within them; apart from the signs that an answer is built of.
LETTERS = st.characters(categories=("Lu", "Ll", "Lo", "Nd"), include_characters="'-. ")
FREE = st.text(LETTERS | st.sampled_from("=,/?!"), max_size=40).map(lambda text: " ".join(text.split()))
VALUE = st.text(LETTERS | st.sampled_from(",/?!"), max_size=40).map(lambda text: " ".join(text.split())).filter(bool)
KEYWORD = st.text(LETTERS, max_size=20).map(lambda text: " ".join(text.split()))
KEYWORD = KEYWORD.filter(lambda text: any(letter.isalnum() for letter in text))


def answers_of(task):
    """All kinds of answers that a task can have."""
    if task.answer_type == "label":
        return st.sampled_from(list(task.labels))
    if task.answer_type == "keywords":
        keywords = st.lists(KEYWORD, max_size=6, unique_by=str.casefold)
        keywords = keywords.filter(lambda words: not words or not re.search(r"\w\W*\.$", words[-1]))
        return keywords.filter(lambda words: re.findall(r"\w+", " ".join(words).casefold()) != ["none"])
    if task.answer_type == "slots":
        slot = st.fixed_dictionaries({"label": st.sampled_from(list(task.labels)), "value": VALUE})
        slots = st.lists(slot, max_size=5)
        return slots.filter(lambda slots: not slots or not re.search(r"\w\W*\.$", slots[-1]["value"]))
    return FREE


@every_labelled
def test_every_label_survives_the_round_trip(task):
    for label in task.labels:
        answer = [{"label": label, "value": "this"}] if task.answer_type == "slots" else label
        assert task.parse(task.format(answer)) == (answer, [])


@every_shipped
@given(data=st.data())
def test_answer_survives_the_round_trip(task, data):
    answer = data.draw(answers_of(task))
    assert task.parse(task.format(answer)) == (answer, [])


@pytest.mark.parametrize("task", [t for t in LABELLED if t.answer_type == "label"], ids=lambda task: task.id)
@given(data=st.data())
def test_label_is_read_however_it_is_dressed(task, data):
    label = data.draw(st.sampled_from(list(task.labels)))
    case = data.draw(st.sampled_from([str.upper, str.lower, str.title, str]))
    around = st.text("., !?\"'()\n", max_size=3)
    dressed = case(label).replace("_", data.draw(st.sampled_from("_ -")))
    assert task.parse(data.draw(around) + dressed + data.draw(around)) == (label, [])


@given(data=st.data(), tasks=st.lists(st.sampled_from(list(SHIPPED)), min_size=2, unique_by=lambda task: task.id))
def test_joint_answer_survives_the_round_trip(data, tasks):
    joint = JointTask(tasks)
    answers = {task.id: data.draw(answers_of(task), label=task.id) for task in tasks}
    assert joint.parse(joint.format(answers)) == (answers, [])


@given(data=st.data(), tasks=st.lists(st.sampled_from(list(SHIPPED)), min_size=2, unique_by=lambda task: task.id))
def test_parts_of_a_joint_answer_may_be_mixed_up_or_missing(data, tasks):
    answers = {task.id: data.draw(answers_of(task), label=task.id) for task in tasks}
    left = data.draw(st.lists(st.sampled_from(tasks), min_size=1, unique_by=lambda task: task.id))
    separator = data.draw(st.sampled_from([" | ", "|", " |\n", "\n"]))
    text = separator.join(f"{task.tag}: {task.format(answers[task.id])}" for task in left)
    wanted = {task.id: answers[task.id] if task in left else None for task in tasks}
    assert JointTask(tasks).parse(text) == (wanted, [])


@given(words=st.lists(KEYWORD, min_size=1, max_size=6, unique_by=str.casefold))
def test_keywords_are_read_back_or_not_written(words):
    """Whatever full stops they end in."""
    try:
        text = WORDS.format(words)
    except ValueError:
        return
    assert WORDS.parse(text) == (words, [])


@given(text=st.text() | st.text("ASREmotion:|;=,none \n"))
def test_no_text_breaks_a_parser(text):
    for task in SHIPPED:
        answer, unread = task.parse(text)
        assert all(part in text for part in unread)
        if task.answer_type == "label":
            assert (answer is None) == (unread != [] or not text.strip())
    SHIPPED.joint(IDS).parse(text)


# Joint answers


def test_joint_instruction_heads_each_task_and_states_the_format():
    joint = SHIPPED.joint(["asr", "emotion-recognition", "kws"])
    assert (joint.id, joint.fields) == ("asr+er+kws", ["keyword"])
    assert joint.instruction(keyword="tea") == (
        "Do these tasks one after the other. === Task: ASR === Write down what is said. === Task: Emotion === Which "
        'emotion does the speaker show: neutral, happy, sad or angry? === Task: KWS === Is "tea" said in this '
        "recording? Answer yes or no. === Answer in this format: ASR: ... | Emotion: ... | KWS: ... |"
    )
    assert "=== Task: ASR === Type. ===" in joint.instruction(["Type.", "Mood?", "Tea?"])
    assert "Which emotion does the speaker show: a or b?" in joint.instruction(
        keyword="tea", labels={"er": ["a", "b"]}
    )
    with pytest.raises(ValueError, match="Task 'kws' needs keyword"):
        joint.instruction()


def test_joint_answer_is_written_with_a_tag_before_each_part():
    joint = SHIPPED.joint(["asr", "er"])
    assert joint.format({"asr": "stop it", "er": "angry"}) == "ASR: stop it | Emotion: angry |"
    assert joint.format({"asr": "stop it", "er": "a"}, labels={"er": ["a", "b"]}) == "ASR: stop it | Emotion: a |"


@pytest.mark.parametrize(
    "text, answers, unread",
    [
        ("Note: buy tea | Mood: happy |", {"note": "buy tea", "mood": "happy"}, []),
        ("note : buy tea|MOOD:Happy.", {"note": "buy tea", "mood": "happy"}, []),
        ("Mood: happy | Note: buy tea |", {"note": "buy tea", "mood": "happy"}, []),
        ("Mood: happy\nNote: buy tea", {"note": "buy tea", "mood": "happy"}, []),
        ("Note: tea | milk | Mood: happy |", {"note": "tea | milk", "mood": "happy"}, []),
        ("Mood: happy |", {"note": None, "mood": "happy"}, []),
        ("Note: | Mood: |", {"note": "", "mood": None}, []),
        ("Note: buy tea | Mood: so so |", {"note": "buy tea", "mood": None}, ["so so"]),
        ("Well. | Mood: happy |", {"note": None, "mood": "happy"}, ["Well."]),
        ("Mood: happy | Mood: not happy |", {"note": None, "mood": "happy"}, ["Mood: not happy"]),
        ("Mood: so so | Mood: happy |", {"note": None, "mood": "happy"}, ["so so"]),
        ("Mood: happy Note: buy tea", {"note": None, "mood": None}, ["happy Note: buy tea"]),
        ("Moods: happy |", None, ["Moods: happy |"]),
        ("happy", None, ["happy"]),
        ("", None, []),
    ],
)
def test_joint_answer_is_read_from_the_text(text, answers, unread, bank):
    assert bank.joint(["note", "mood"]).parse(text) == ParsedAnswer(answers, unread)


@pytest.mark.parametrize(
    "answers, message",
    [
        ({"note": "buy tea"}, r"note\+mood lacks the answer of mood"),
        ({"note": "buy tea", "mood": "sad"}, "Task 'mood': 'sad' is no label answer"),
        ({"note": "buy tea | Mood: happy", "mood": "happy"}, "cannot write down"),
        ({"note": "buy tea |", "mood": "happy"}, "cannot write down"),
    ],
)
def test_joint_answer_that_could_not_be_read_back_is_not_written(answers, message, bank):
    with pytest.raises(ValueError, match=message):
        bank.joint(["note", "mood"]).format(answers)


@pytest.mark.parametrize(
    "text, answers, unread",
    [
        ("Note: buy tea | Words: tea | Mood: happy |", {"note": "buy tea", "mood": "happy"}, ["Words: tea"]),
        ("Mood: happy | Note: buy tea\nwords : tea |", {"note": "buy tea", "mood": "happy"}, ["words : tea"]),
        ("Words: tea | Note: buy tea |", {"note": "buy tea", "mood": None}, ["Words: tea"]),
        ("Words: tea |", None, ["Words: tea |"]),
        ("Note: tea | Milk: cold | Mood: happy |", {"note": "tea | Milk: cold", "mood": "happy"}, []),
    ],
)
def test_part_of_a_task_that_was_not_asked_for_is_not_read(text, answers, unread, bank):
    bank.add(WORDS)
    joint = bank.joint(["note", "mood"])
    assert joint.parse(text) == pickle.loads(pickle.dumps(joint)).parse(text) == ParsedAnswer(answers, unread)
    with pytest.raises(ValueError, match="cannot write down"):
        joint.format({"note": "buy tea | Words: tea", "mood": "happy"})


def test_task_that_has_the_tag_of_another_can_be_asked(bank):
    bank.add(Task("memo", "memo-taking", "note", ["Write it down!"]))
    assert bank.joint(["memo", "mood"]).parse("Note: tea | Mood: happy |").answer == {"memo": "tea", "mood": "happy"}


def test_joint_task_is_of_several_different_tasks(bank):
    for names, message in (
        ([], "not of none"),
        (["mood"], "not of mood"),
        (["mood", "mood-of-speaker"], "a task twice"),
    ):
        with pytest.raises(ValueError, match=message):
            bank.joint(names)
    with pytest.raises(ValueError, match="two of one tag"):
        JointTask([NOTE, Task("other", "other-note", "NOTE", ["Go."])])
    with pytest.raises(ValueError, match=r"takes labels as a dict by task id \(mood, note\)"):
        bank.joint(["mood", "note"]).parse("Mood: a |", labels={"happy": "glad"})


# The bank


def test_task_is_found_by_id_and_by_name(bank):
    assert bank["mood"] is bank["mood-of-speaker"] is bank.find("mood") is MOOD
    assert "note-taking" in bank and "Note" not in bank
    assert len(bank) == 2 and list(bank) == [MOOD, NOTE]
    assert bank.find(["note-taking", "mood"]).tasks == [NOTE, MOOD]


def test_unknown_task_lists_the_known_ones(bank):
    with pytest.raises(KeyError, match="no task 'asr'; it knows mood, note"):
        bank["asr"]
    with pytest.raises(KeyError, match="no task 'asr'; it knows mood, note"):
        bank.find(["mood", "asr"])
    with pytest.raises(KeyError, match="it knows none"):
        TaskBank()["asr"]
    with pytest.raises(ValueError, match=r"The task is \['mood', 5\]; it is named by a text"):
        bank.find(["mood", 5])


@pytest.mark.parametrize(
    "id, name", [("mood", "new"), ("new", "mood"), ("new", "mood-of-speaker"), ("note-taking", "n")]
)
def test_taken_id_or_name_is_refused_and_changes_nothing(id, name, bank):
    with pytest.raises(ValueError, match="Two tasks are called"):
        bank.add(Task(id, name, "New", ["Go."]))
    assert list(bank) == [MOOD, NOTE]


# Files


def test_yaml_gives_the_task(tmp_path):
    assert TaskBank.from_yaml(yaml_folder(tmp_path, mood=YAML)) == TaskBank([MOOD])
    assert TaskBank.from_yaml(tmp_path / "mood.yaml") == TaskBank([MOOD])


def test_own_tasks_stand_beside_the_shipped_ones(tmp_path):
    bank = TaskBank.from_yaml(SHIPPED_FOLDER, yaml_folder(tmp_path, mood=YAML))
    assert [task.id for task in bank] == [*IDS, "mood"]


def test_path_that_is_not_there_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(TaskBank.from_yaml(tmp_path / "empty")) == 0
    for name in ("nothing", "nothing.yaml"):
        with pytest.raises(FileNotFoundError, match=f"no task file or folder .*{name}"):
            TaskBank.from_yaml(tmp_path / name)


@pytest.mark.parametrize(
    "text, message",
    [
        (YAML.replace("tag: Mood\n", ""), "field tag is missing"),
        (YAML.replace("id:", "ids:"), "unknown field ids; a task has id, name, tag, prompts, labels"),
        (YAML.replace("  - How", "  How"), "prompts must be a list"),
        (YAML + "held_out_prompts: How?", "held_out_prompts must be a list"),
        (YAML.replace("  happy: glad", "  yes: glad"), "label True is no text; put it in quotes"),
        (YAML.replace("happy: glad", "happy:"), "the description of label 'happy' is no text"),
        (YAML.replace("tag: Mood", "tag: no"), "tag is False, which is no text; put it in quotes"),
        (YAML.replace("tag: Mood", "tag: 'Mood"), "this is no YAML: while scanning a quoted scalar"),
        (YAML.replace("How does", "How {does"), "Task 'mood': the prompt .* has a brace without a partner"),
        (YAML.split("labels")[0] + "labels: [happy, sad]", "labels must be a mapping"),
        ("", "holds no fields"),
        ("- id: mood", "holds no fields"),
    ],
)
def test_bad_field_is_named_with_its_file(text, message, tmp_path):
    with pytest.raises(ValueError, match=rf"bad\.yaml: .*{message}"):
        TaskBank.from_yaml(yaml_folder(tmp_path, bad=text))


def test_two_files_of_one_task_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Two tasks are called 'mood'"):
        TaskBank.from_yaml(yaml_folder(tmp_path, first=YAML, second=YAML.replace("mood-of-speaker", "other")))


@pytest.mark.parametrize("tasks", [[], [MOOD, NOTE, FIND, WISH], SHIPPED], ids=["none", "some", "shipped"])
def test_json_round_trip(tasks, tmp_path):
    bank = TaskBank(tasks)
    bank.to_json(tmp_path / "tasks.json")
    assert TaskBank.from_json(tmp_path / "tasks.json") == bank


def test_json_keeps_order_and_letters_of_every_language(tmp_path):
    bank = TaskBank([NOTE, Task("gefühl", "gefühl-erkennen", "Gefühl", ["Wie fühlt es sich an?"], {"böse": "wütend"})])
    bank.to_json(tmp_path / "tasks.json")
    assert list(TaskBank.from_json(tmp_path / "tasks.json")) == list(bank)
    assert "böse" in (tmp_path / "tasks.json").read_text(encoding="utf-8")


def test_bank_of_an_older_checkpoint_loads(tmp_path):
    """Once a task had these fields alone."""
    older = {"id": "mood", "name": "mood-of-speaker", "tag": "Mood", "prompts": MOOD.prompts, "labels": MOOD.labels}
    (tmp_path / "tasks.json").write_text(json.dumps([older, {**older, "id": "n", "name": "m", "labels": {}}]))
    mood, note = TaskBank.from_json(tmp_path / "tasks.json")
    assert mood == MOOD and mood.parse("Happy.") == ("happy", []) and mood.instruction() == "How does it sound?"
    assert note.answer_type == "text" and note.parse("Happy.") == ("Happy.", [])


def test_bad_json_names_the_task(tmp_path):
    sound = {"id": "a", "name": "b", "tag": "c", "prompts": ["d"]}
    (tmp_path / "tasks.json").write_text(json.dumps([sound, {"id": "e"}]))
    with pytest.raises(ValueError, match=r"tasks\.json, task 1: field name, prompts, tag is missing"):
        TaskBank.from_json(tmp_path / "tasks.json")
