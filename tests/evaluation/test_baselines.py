"""Cascades, the oracle, recognisers and keyword search, and what is refused before anything is loaded."""

import json

import pytest
import soundfile
import torch
from tiny_models import AUDIO_CONFIGS, noise, save_bases, spelling_tokenizer, tiny_feature_extractor
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
    T5Config,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperForConditionalGeneration,
)

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, Task, TaskBank
from speechverse.evaluation.baselines import SYSTEMS, load_system
from speechverse.evaluation.baselines.keyword_search import is_said
from speechverse.evaluation.baselines.speech_recognition import (
    Hypotheses,
    Recogniser,
    TransformersRecogniser,
    open_recogniser,
)
from speechverse.evaluation.corpus_metric import load_metric
from speechverse.evaluation.suite import LoadedRow, SuiteRow
from speechverse.training.data.sample import JointSample, Sample
from speechverse.training.data.transcripts import ask_about_text


CPU = torch.device("cpu")
SAID = ["play red", "Ask for time!", "play it", "no music", "red"]
TASKS = TaskBank(
    [
        Task("ic", "intent-classification", "IC", ["{labels}?"], {"play_music": "plays", "ask_time": "asks"}),
        Task("kws", "keyword-search", "KWS", ["is {keyword} said? {labels}"], {"yes": "", "no": ""}),
        Task("st", "speech-translation", "ST", ["translate it"]),
    ]
)


class FakeRecogniser(Recogniser):
    """Hears what it is told to."""

    def __init__(self, texts=None):
        self.model, self.fingerprint, self.texts, self.heard = "fake", "f" * 64, texts or {}, []

    def load(self, device):
        pass

    def transcribe(self, samples):
        self.heard.append([sample.audio for sample in samples])
        return [self.texts.get(sample.audio, sample.transcript) for sample in samples]


@pytest.fixture
def clips(tmp_path):
    """Five recordings of noise, with words."""
    files = [tmp_path / f"{index}.wav" for index in range(len(SAID))]
    for index, file in enumerate(files):
        soundfile.write(file, noise(0.3 + 0.05 * index, index), 16_000)
    return list(map(str, files))


@pytest.fixture
def text_folder(tmp_path, monkeypatch):
    """A checkpoint that learned from text, on tiny bases that spell."""
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
    audio_base, text_base = save_bases(tmp_path / "bases")
    tokenizer = spelling_tokenizer("t5")
    torch.manual_seed(0)
    config = T5Config.from_pretrained(text_base)
    config.vocab_size = len(tokenizer) + 8
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(text_base)
    tokenizer.save_pretrained(text_base)
    model = SpeechVerseForConditionalGeneration.from_foundations(
        str(audio_base), str(text_base), lora_rank=2, input_modality="text"
    )
    model.generation_config.max_new_tokens = 12
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5)
    model.save_pretrained(tmp_path / "text")
    SpeechVerseProcessor.for_model(model, TASKS).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def ctc_folder(tmp_path):
    return save_ctc(tmp_path / "ctc")


def save_ctc(folder):
    """A recogniser of transformers that writes letters."""
    torch.manual_seed(0)
    letters = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefgh"])}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(letters))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    config = AUDIO_CONFIGS["wav2vec2-group-norm"]()
    config.vocab_size, config.pad_token_id = len(letters), 0
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**config.to_dict()))
    with torch.no_grad():
        model.lm_head.weight.normal_(std=2.0)
    model.save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=False), tokenizer).save_pretrained(folder)
    return folder


def asked(clips, task="ic", **values) -> list[Sample]:
    known = TASKS[task]
    target = {"ic": "play_music", "kws": "yes", "st": "rot"}[task]
    return [
        Sample(clip, tuple(known.prompts), target, task, values, known.labels or None, transcript=said)
        for clip, said in zip(clips, SAID, strict=True)
    ]


def row_of(samples, **settings) -> LoadedRow:
    return LoadedRow(SuiteRow("row", {}, **settings), samples, [], [])


def loaded(kind, *arguments, recogniser=None, monkeypatch=None, **options):
    if recogniser is not None:
        for module in ("speech_recognition", "text_llm"):
            monkeypatch.setattr(f"speechverse.evaluation.baselines.{module}.open_recogniser", lambda name: recogniser)
    system = load_system(kind, *map(str, arguments), **options)
    system.tasks(TASKS)
    system.load(CPU)
    return system


def test_oracle_answers_what_the_model_answers_about_the_text(text_folder, clips):
    """Against the model and its processor themselves, one sample at a time."""
    system = loaded("text", text_folder)
    model = SpeechVerseForConditionalGeneration.from_pretrained(text_folder)
    processor = SpeechVerseProcessor.from_pretrained(text_folder)
    constraint = processor.constraint("ic")
    found = {}
    for decoding in ("free", "constrained", "scored"):
        samples = asked(clips)
        found[decoding] = system.answer(samples, row_of(samples, decoding=decoding))
    for index, said in enumerate(SAID):
        inputs = processor(f'"{said}" play_music or ask_time?')
        free = processor.decode(model.generate(**inputs)[0], skip_special_tokens=True).strip()
        held = processor.read_tokens(model.generate(**inputs, constraint=constraint)[0], constraint, "ic").answer
        scores = model.score_labels(processor.label_ids("ic"), **inputs)[0]
        assert found["free"][index]["text"] == free
        assert found["constrained"][index]["answer"] == held
        assert found["scored"][index]["answer"] == ["play_music", "ask_time"][scores.argmax()]
    assert len({answer["text"] for answer in found["free"]}) > 1  # so that the words matter


@pytest.mark.parametrize(
    "row",
    [
        {"decoding": "constrained", "describe": True},
        {"instruction": "Say it in German."},
        {"instruction": "In <audio>, who speaks?", "hints": ["red"]},
    ],
)
def test_rows_are_put_in_their_own_words(row, text_folder, clips):
    system = loaded("text", text_folder)
    samples = asked(clips)
    loaded_row = row_of(samples, **row)
    answers = system.answer(samples, loaded_row)
    model, processor = system.ask.model, system.text_processor
    for sample, answer in zip(samples, answers, strict=True):
        text = ask_about_text(sample.transcript, loaded_row.instruction(sample))
        options = {"hint_ids": [processor.hint_ids(row["hints"])]} if "hints" in row else {}
        if "instruction" not in row:
            options["constraint"] = processor.constraint("ic")
        tokens = model.generate(**processor(text), **options)
        assert answer["text"] == processor.decode(tokens[0], skip_special_tokens=True).strip()


def test_nothing_is_sampled(text_folder, speller_folder, clips):
    """Though the checkpoints ask for it, as those of chat models do."""
    samples, found = asked(clips, "st"), []
    for hot in (False, True):
        for folder in (text_folder, speller_folder):
            config = json.loads((folder / "generation_config.json").read_text())
            config |= {"do_sample": True, "temperature": 50.0, "top_k": 0} if hot else {}
            (folder / "generation_config.json").write_text(json.dumps(config))
        oracle, recogniser = loaded("text", text_folder), open_recogniser(str(speller_folder))
        recogniser.load(CPU)
        assert oracle.ask.model.generation_config.temperature == recogniser.ask.model.generation_config.temperature
        found.append((oracle.answer(samples, row_of(samples)), recogniser.transcribe(samples)))
    assert found[0] == found[1]


def test_cascade_with_a_perfect_recogniser_is_the_oracle(text_folder, clips, monkeypatch):
    recogniser = FakeRecogniser()
    oracle = loaded("text", text_folder)
    cascade = loaded("cascade", text_folder, "fake", recogniser=recogniser, monkeypatch=monkeypatch)
    for task in ("ic", "st"):
        samples = asked(clips, task)
        assert cascade.answer(samples, row_of(samples)) == oracle.answer(samples, row_of(samples))
    assert recogniser.heard == [clips]  # once, for both rows
    assert cascade.describe()["asr"] == {"name": "fake", "model": "fake", "fingerprint": "f" * 64}


def test_cascade_passes_errors_on(text_folder, clips, monkeypatch):
    recogniser = FakeRecogniser({clip: said for clip, said in zip(clips, reversed(SAID), strict=True)})
    cascade = loaded("cascade", text_folder, "fake", recogniser=recogniser, monkeypatch=monkeypatch)
    samples = asked(clips, "st")
    turned = [
        Sample(s.audio, s.instructions, s.target, "st", {}, None, transcript=t)
        for s, t in zip(samples, reversed(SAID), strict=True)
    ]
    assert cascade.answer(samples, row_of(samples)) == loaded("text", text_folder).answer(turned, row_of(turned))


def test_what_a_text_llm_cannot_be_asked(text_folder, clips, monkeypatch):
    oracle = load_system("text", str(text_folder))
    samples = asked(clips)
    assert oracle.why_not(row_of(samples)) is None

    def other(**change):
        return Sample(**{"audio": clips[0], "instructions": ("?",), "target": "x", "transcript": "red"} | change)

    assert "is given the words" in oracle.why_not(row_of([other(task="asr")]))
    parts = (other(task="asr"), other(task="ic"))
    joint = JointSample(clips[0], (), "x", task="asr+ic", parts=parts, transcript="red")
    assert "is given the words" in oracle.why_not(row_of([joint]))
    assert oracle.why_not(row_of([other(task="er")])) == "er: the answer is in the sound, not in the words"
    wordless = [other(task="ic", transcript=None), samples[0]]
    assert oracle.why_not(row_of(wordless)).startswith("1 of 2 samples have no transcript")
    monkeypatch.setattr("speechverse.evaluation.baselines.text_llm.open_recogniser", lambda name: FakeRecogniser())
    assert load_system("cascade", str(text_folder), "fake").why_not(row_of(wordless)) is None


@pytest.mark.parametrize(
    "keyword, transcript, said",
    [
        ("red", "The RED light.", True),
        ("red", "The blue light", False),
        ("art", "a party", True),  # a substring is no word
        ("colour", "Which color?", True),  # spelling
        ("twenty", "20 lights", True),  # numbers
        ("red light", "red, light", True),
        ("red light", "red traffic light", False),
        ("umm", "Umm, no", True),  # of which the normaliser leaves nothing
        ("umm", "no", False),
        ("red", "", False),
    ],
)
def test_keywords_are_substrings_of_normalised_text(keyword, transcript, said):
    assert is_said(keyword, transcript, load_metric("wer").normalise) is said


def test_keyword_search_answers_in_the_tasks_labels(clips, monkeypatch):
    search = loaded("keyword_search", recogniser=FakeRecogniser(), monkeypatch=monkeypatch, asr="fake")
    samples = asked(clips, "kws", keyword="Red")
    assert search.why_not(row_of(samples)) is None
    assert [answer["answer"] for answer in search.answer(samples, row_of(samples))] == ["yes", "no", "no", "no", "yes"]
    assert search.why_not(row_of(asked(clips, "ic"))) == "keyword search only tells whether a keyword is said"
    other = Sample(clips[0], ("?",), "ja", "kws", {"keyword": "red"}, {"ja": "", "nein": ""})
    assert "this row wants ja or nein" in search.why_not(row_of([other]))


def test_hypotheses_are_kept(clips, tmp_path):
    samples = asked(clips)
    first = FakeRecogniser()
    assert Hypotheses(first, tmp_path / "out").of(samples[:3]) == SAID[:3]
    (file,) = (tmp_path / "out").iterdir()
    lines = [json.loads(line) for line in file.open()]
    assert [(line["audio"], line["text"]) for line in lines] == [(f"{i}.wav", SAID[i]) for i in range(3)]
    with file.open("a") as stream:
        stream.write('{"recording": "cut sho')  # as a run leaves it that is killed while it writes
    again = FakeRecogniser()
    kept = Hypotheses(again, tmp_path / "out")
    assert kept.of(samples) == SAID and again.heard == [clips[3:]]
    assert [json.loads(line)["text"] for line in file.open()] == SAID
    other = FakeRecogniser()
    other.fingerprint = "0" * 64
    Hypotheses(other, tmp_path / "out").of(samples[:1])
    assert other.heard == [clips[:1]]  # what another recogniser has heard is not its own


def test_recogniser_of_transformers_hears_recordings_as_if_alone(ctc_folder, clips):
    """Its group norm would let the padding of a batch change what it hears."""
    samples = [Sample(clip, ("?",), "x", "asr") for clip in clips]
    system = load_system("asr", str(ctc_folder))
    system.load(CPU)
    texts = [answer["text"] for answer in system.answer(samples, row_of(samples))]
    alone = open_recogniser(str(ctc_folder))
    alone.load(CPU)
    assert texts == [alone.transcribe([sample])[0] for sample in samples] and any(texts)
    processor = Wav2Vec2Processor.from_pretrained(ctc_folder)
    model = Wav2Vec2ForCTC.from_pretrained(ctc_folder).eval()
    wave, _ = soundfile.read(clips[0], dtype="float32")
    with torch.no_grad():
        logits = model(**processor(wave, sampling_rate=16_000, return_tensors="pt")).logits
    assert texts[0] == processor.batch_decode(logits.argmax(-1))[0].strip()
    assert system.why_not(row_of(samples)) is None
    assert system.why_not(row_of(asked(clips))) == "a speech recogniser only writes down what is said"


def test_whisper_is_told_its_language(tmp_path, clips, monkeypatch):
    folder = tmp_path / "tiny-whisper"
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(AUDIO_CONFIGS["whisper"]())
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w2").save_pretrained(folder)
    tiny_feature_extractor("whisper").save_pretrained(folder)
    recogniser = open_recogniser(str(folder))
    assert isinstance(recogniser, TransformersRecogniser) and recogniser.describe()["language"] == "en"
    calls = []

    class Ask:
        def __init__(self):
            self.model, self.feature_extractor = model, tiny_feature_extractor("whisper")

        def __call__(self, inputs, **options):
            calls.append((len(inputs), options))
            return [{"text": " heard "}] * len(inputs)

    monkeypatch.setattr(model.generation_config, "is_multilingual", True, raising=False)
    monkeypatch.setattr("speechverse.evaluation.baselines.speech_recognition.pipeline", lambda *a, **k: Ask())
    recogniser.load(CPU)
    soundfile.write(tmp_path / "long.wav", noise(31.0), 16_000)
    samples = [Sample(clip, ("?",), "x", "asr") for clip in [*clips, str(tmp_path / "long.wav")]]
    assert recogniser.transcribe(samples) == ["heard"] * 6
    told = {"generate_kwargs": {"num_beams": 1, "task": "transcribe", "language": "en"}}
    assert calls == [
        (5, told | {"batch_size": 5}),
        (1, told | {"batch_size": 1, "return_timestamps": True}),  # which it needs beyond 30 s
    ]


def test_speechverse_recognises_as_its_pipeline_does(speller_folder, clips):
    from transformers import pipeline

    recogniser = open_recogniser(str(speller_folder))
    assert recogniser.processor is not None  # which says what recordings it can take
    recogniser.load(CPU)
    ask = pipeline("speech-instruction", model=str(speller_folder))
    heard = recogniser.transcribe(asked(clips))
    assert heard == [answer["text"] for answer in ask([{"audio": clip, "task": "asr"} for clip in clips])]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "casacde"}, f"There is no system 'casacde'; there are {', '.join(SYSTEMS)}"),
        ({"kind": "cascade", "asr": "a"}, "--system cascade needs --model"),
        ({"kind": "cascade", "model": "m"}, "--system cascade needs --asr"),
        ({"kind": "keyword_search"}, "--system keyword_search needs --asr"),
        ({"kind": "keyword_search", "asr": "a", "model": "m"}, "--system keyword_search takes no --model"),
        ({"kind": "text", "model": "m", "asr": "a"}, "--system text takes no --asr"),
    ],
)
def test_wrong_system_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_system(**arguments)


def test_models_of_another_kind_are_refused(text_folder, speller_folder, ctc_folder, tmp_path, monkeypatch):
    for name in ("AutoModel", "pipeline"):
        module = "text_llm" if name == "AutoModel" else "speech_recognition"
        monkeypatch.setattr(
            f"speechverse.evaluation.baselines.{module}.{name}", lambda *a, **k: pytest.fail("weights are loaded")
        )
    with pytest.raises(ValueError, match="did not learn from text: train the LLM of a cascade by"):
        load_system("text", str(speller_folder))
    with pytest.raises(ValueError, match="learned from text alone: ask it by --system text or cascade"):
        load_system("speechverse", str(text_folder))
    with pytest.raises(ValueError, match="learned from text alone .* it recognises no speech"):
        load_system("cascade", str(text_folder), str(text_folder))
    with pytest.raises(ValueError, match="is T5ForConditionalGeneration, no speech recogniser"):
        load_system("asr", str(tmp_path / "bases" / "tiny-t5"))
    with pytest.raises(ValueError, match="is WavLMModel, no speech recogniser"):
        load_system("keyword_search", asr=str(tmp_path / "bases" / "tiny-wavlm"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_system("cascade", str(text_folder), "nowhere")
    deaf = SpeechVerseProcessor.from_pretrained(speller_folder)
    deaf.tasks = TaskBank([deaf.tasks["er"]])
    deaf.save_pretrained(speller_folder)
    with pytest.raises(ValueError, match="was not taught the task asr, only er"):
        load_system("asr", str(speller_folder))
