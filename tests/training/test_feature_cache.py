"""What the encoder gives, kept on disk: it is what the encoder gives, is found again, and trains the same model."""

import contextlib
import errno
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import pytest
import soundfile
import torch
from encoded_audio import encoded
from tiny_models import AUDIO_CONFIGS, noise, save_bases, tiny_model, tiny_processor

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.training.data import feature_cache, recording_digests
from speechverse.training.data.dataset import InstructionDataset
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.manifest import ManifestSource, load_samples
from speechverse.training.data.recording_digests import digest_recordings
from speechverse.training.data.recordings import EncodedAudio, Segment, TableCell, TarMember


WORDINGS = ("which colour ?", "say it .", "what is said ?")


@pytest.fixture
def files(tmp_path):
    """Paths of seven recordings of different lengths."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(7):
        (folder / f"{index}.wav").write_bytes(encoded("wav", noise(0.3 + 0.11 * index, index)))
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def processor(model):
    return tiny_processor(model)


@pytest.fixture
def extracted(monkeypatch):
    """Which recordings are read to be encoded, as often as they are; and their bytes, where they are no paths."""
    read = Counter()
    extract_features = SpeechVerseProcessor.extract_features

    def count(self, audio, *args):
        read[audio if isinstance(audio, (str, bytes)) else id(audio)] += 1
        return extract_features(self, audio, *args)

    monkeypatch.setattr(SpeechVerseProcessor, "extract_features", count)
    return read


def encode_alone(model, processor, file) -> torch.Tensor:
    """What the model itself makes of one recording, `(frames, hidden_size)`."""
    inputs = processor("say it .", file)
    with torch.no_grad():
        names = processor.model_input_names[2:]
        return model.get_audio_features(**{name: inputs[name] for name in names}).last_hidden_state[0]


@pytest.mark.parametrize("audio", AUDIO_CONFIGS)
def test_features_are_those_of_the_encoder(audio, files, tmp_path):
    model = tiny_model(audio)
    processor = tiny_processor(model, audio)
    cache = FeatureCache(model, processor, tmp_path / "features", batch_size=3)
    cache.add(files)
    for file in files:
        expected = encode_alone(model, processor, file)
        assert cache[file].dtype == torch.bfloat16 and cache[file].shape == expected.shape
        torch.testing.assert_close(cache[file].float(), expected, rtol=2**-8, atol=1e-4)


def test_features_under_autocast_are_those_of_a_training_step(model, processor, files, tmp_path):
    cache = FeatureCache(model, processor, tmp_path, batch_size=1, autocast_dtype=torch.bfloat16)
    cache.add(files)
    with torch.autocast("cpu", torch.bfloat16):
        expected = [encode_alone(model, processor, file).bfloat16() for file in files]
    for file, features in zip(files, expected, strict=True):
        torch.testing.assert_close(cache[file], features, rtol=0, atol=0)
    assert not torch.equal(cache[files[0]], encode_alone(model, processor, files[0]).bfloat16())


def dataset_of(manifest, model, processor, tasks, features=None):
    samples = load_samples(ManifestSource(str(manifest), instruction=list(WORDINGS), target="$answer"), tasks)
    if features is not None:
        features.add(sample.audio for sample in samples)
    return InstructionDataset(check_samples(samples, FilterRules(processor), workers=1), processor, features)


@pytest.mark.parametrize(
    "audio, text", [*((audio, "t5") for audio in AUDIO_CONFIGS), ("wavlm", "llama"), ("whisper", "llama")]
)
def test_cached_features_give_the_same_loss(audio, text, manifest, tasks, tmp_path):
    model = tiny_model(audio, text)
    processor = tiny_processor(model, audio, text)
    plain = dataset_of(manifest, model, processor, tasks)
    cached = dataset_of(manifest, model, processor, tasks, FeatureCache(model, processor, tmp_path, batch_size=3))
    for index in range(len(plain)):
        assert cached[index]["input_ids"] == plain[index]["input_ids"]
    batches = [processor.pad([dataset[index] for index in range(8)]) for dataset in (plain, cached)]
    assert "audio_hidden_states" in batches[1] and processor.audio_input_name not in batches[1]
    batches.append(batches[1] | {"audio_hidden_states": batches[1]["audio_hidden_states"].flip(2)})
    expected, found, disturbed = (model(**batch) for batch in batches)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-3, atol=0)
    error, effect = ((output.logits - expected.logits).abs().max() for output in (found, disturbed))
    assert error < 0.05 * effect


@pytest.mark.parametrize("text", ["t5", "llama"])
def test_cached_features_give_the_same_loss_and_gradient_under_autocast(text, manifest, tasks, tmp_path):
    model = tiny_model("wavlm", text).train()
    processor = tiny_processor(model, "wavlm", text)
    cache = FeatureCache(model, processor, tmp_path, autocast_dtype=torch.bfloat16)
    losses, gradients = [], []
    for features in (None, cache):
        dataset = dataset_of(manifest, model, processor, tasks, features)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**processor.pad([dataset[index] for index in range(8)])).loss
        loss.backward()
        losses.append(loss)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=0)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_recording_is_encoded_once(model, processor, files, tmp_path, extracted):
    cache = FeatureCache(model, processor, tmp_path)
    cache.add(files[:4])
    cache.add(file for file in [*files, *files])
    FeatureCache(model, processor, tmp_path).add(files)  # another run's
    assert extracted == Counter(files)


def test_moved_and_renamed_recordings_are_found(model, processor, files, tmp_path, extracted):
    cache = FeatureCache(model, processor, tmp_path / "features")
    cache.add(files)
    (tmp_path / "elsewhere").mkdir()
    moved = [shutil.move(file, tmp_path / "elsewhere" / f"{index}") for index, file in enumerate(reversed(files))]
    extracted.clear()
    later = FeatureCache(model, processor, tmp_path / "features")
    later.add(map(str, moved))
    assert not extracted
    for old, new in zip(reversed(files), moved, strict=True):
        assert torch.equal(later[str(new)], cache[old])


def test_changed_recording_is_encoded_anew(model, processor, files, tmp_path, extracted):
    FeatureCache(model, processor, tmp_path).add(files)
    extracted.clear()
    content = bytearray(Path(files[2]).read_bytes())
    content[-1] ^= 1
    Path(files[2]).write_bytes(content)
    os.utime(files[2], ns=(0, 0))  # another time, but the same size
    os.utime(files[3], ns=(0, 0))  # and the same bytes
    FeatureCache(model, processor, tmp_path).add(files)
    assert extracted == Counter([files[2]])


def test_recordings_of_one_name_in_two_folders_are_two(model, processor, tmp_path, monkeypatch):
    caches = []
    for seed in range(2):  # of one size and time, as an archive leaves them
        folder = tmp_path / f"corpus {seed}"
        folder.mkdir()
        (folder / "a.wav").write_bytes(encoded("wav", noise(0.5, seed)))
        os.utime(folder / "a.wav", ns=(10**18, 10**18))
        monkeypatch.chdir(folder)
        caches.append(FeatureCache(model, processor, tmp_path / "features"))
        caches[-1].add(["a.wav"])
    assert not torch.equal(caches[0]["a.wav"], caches[1]["a.wav"])


def test_what_changes_the_features_has_a_cache_of_its_own(files, tmp_path, extracted):
    models = [tiny_model(), tiny_model(seed=1), tiny_model("hubert"), tiny_model()]
    processors = [tiny_processor(model) for model in models]
    processors[3].feature_extractor.do_normalize = False
    caches = [FeatureCache(*pair, tmp_path) for pair in zip(models, processors, strict=True)]
    caches.append(FeatureCache(models[0], processors[0], tmp_path, autocast_dtype=torch.bfloat16))
    models[0].audio_tower.bfloat16()
    caches.append(FeatureCache(models[0], processors[0], tmp_path))
    assert len({cache.folder for cache in caches}) == len(caches)
    models[0].audio_tower.float()
    for cache in caches[:-1]:
        cache.add(files[:1])
    assert extracted == {files[0]: len(caches) - 1}


def test_what_does_not_change_the_features_shares_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path))
    save_bases(tmp_path), save_bases(tmp_path, text="llama")
    save_bases(tmp_path / "other", seed=1)
    joined = SpeechVerseForConditionalGeneration.from_foundations("tiny-wavlm", "tiny-t5")
    processor = SpeechVerseProcessor.for_model(joined)
    cache = FeatureCache(joined, processor, tmp_path / "features")
    assert cache.folder.parent.name == joined.config.audio_base["fingerprint"]

    with_llama = SpeechVerseForConditionalGeneration.from_foundations("tiny-wavlm", "tiny-llama", lora_rank=2)
    other_pair = (with_llama, SpeechVerseProcessor.for_model(with_llama))
    assert FeatureCache(*other_pair, tmp_path / "features").folder == cache.folder
    joined.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path / "checkpoint")
    loaded_pair = (loaded, SpeechVerseProcessor.from_pretrained(tmp_path / "checkpoint"))
    assert FeatureCache(*loaded_pair, tmp_path / "features").folder == cache.folder

    other = SpeechVerseForConditionalGeneration.from_foundations(str(tmp_path / "other" / "tiny-wavlm"), "tiny-t5")
    assert FeatureCache(other, processor, tmp_path / "features").folder != cache.folder


def test_every_kind_of_recording_is_known_by_its_bytes(model, processor, files, tmp_path, extracted):
    content = Path(files[6]).read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(files[6], "inside.wav")
    with tarfile.open(tmp_path / "a.tar") as archive:
        offset = archive.getmember("inside.wav").offset_data
    whole = [
        files[6],
        TarMember(str(tmp_path / "a.tar"), "inside.wav", offset, len(content)),
        EncodedAudio("", content),
        EncodedAudio("the same", content),
        TableCell("row 0", datasets.Dataset.from_list([{"audio": {"bytes": content, "path": None}}]), 0, "audio"),
    ]
    cache = FeatureCache(model, processor, tmp_path)
    cache.add(whole)
    assert sum(extracted.values()) == 1
    assert all(torch.equal(cache[audio], cache[files[6]]) for audio in whole)

    namesake = EncodedAudio("", encoded("wav", noise(0.4)))
    cache.add([namesake])
    assert sum(extracted.values()) == 2 and len(cache[namesake]) < len(cache[files[6]])

    stretches = [Segment(audio, 0.1, 0.5) for audio in whole[:2]]
    cache.add([*stretches, Segment(files[6], 0.1, 0.6)])
    assert sum(extracted.values()) == 4
    wave, rate = soundfile.read(files[6], dtype="float32")
    expected = encode_alone(model, processor, {"array": wave[1600:8000], "sampling_rate": rate})
    for stretch in stretches:
        torch.testing.assert_close(cache[stretch].float(), expected, rtol=2**-8, atol=1e-4)


def test_files_that_do_not_change_are_hashed_once(files, tmp_path, monkeypatch):
    hashed = []
    original = recording_digests._digest
    monkeypatch.setattr(recording_digests, "_digest", lambda audio: hashed.append(audio) or original(audio))
    memory = tmp_path / "digests.json"
    audios = [*files, Segment(files[0], 0.0, 0.2), Segment(files[0], 0.1, 0.2)]
    first = digest_recordings(audios, memory)
    assert len(set(first)) == len(audios)
    assert digest_recordings(audios, memory) == first and sorted(hashed) == files
    os.utime(files[1], ns=(0, 0))
    assert digest_recordings(audios, memory) == first and hashed[len(files) :] == [files[1]]
    memory.write_text("{")  # half a file
    assert digest_recordings(audios, memory) == first


def test_digests_that_runs_write_at_once_are_all_kept(files, tmp_path):
    memory = tmp_path / "digests.json"
    first, second = (recording_digests.RecordingMemory(memory, "1") for _ in range(2))
    first.put(files[0], ["a"])
    second.put(files[1], ["b"])
    first.save(), second.save()
    last = recording_digests.RecordingMemory(memory, "1")
    assert (last.get(files[0]), last.get(files[1])) == (["a"], ["b"])
    assert recording_digests.RecordingMemory(memory, "2").get(files[0]) is None


def test_interrupted_encoding_goes_on(model, processor, files, tmp_path, extracted, monkeypatch):
    cache = FeatureCache(model, processor, tmp_path, batch_size=2)
    encode, passes = model.audio_family.encode, []

    def interrupted(*args):
        passes.append(args)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return encode(*args)

    with monkeypatch.context() as context:
        context.setattr(model.audio_family, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.add(files)
    extracted.clear()
    FeatureCache(model, processor, tmp_path, batch_size=2).add(files)
    assert sorted(extracted) == files[:3]  # the longer ones came first


def test_cache_goes_to_other_processes_without_the_model(model, processor, files, tmp_path):
    cache = FeatureCache(model, processor, tmp_path)
    cache.add(files)
    sent = pickle.dumps(cache)
    assert len(sent) < 5000
    received = pickle.loads(sent)
    assert all(torch.equal(received[file], cache[file]) for file in files)
    assert "digests.json" in os.listdir(tmp_path)


def test_workers_read_what_is_encoded_and_what_is_cached(manifest, model, processor, tasks, tmp_path):
    alone, helped = (FeatureCache(model, processor, tmp_path / f"{n}", batch_size=3, num_workers=n) for n in (0, 2))
    expected = dataset_of(manifest, model, processor, tasks, alone)
    dataset = dataset_of(manifest, model, processor, tasks, helped)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=lambda example: example)
    for index, example in enumerate(loader):
        found, wanted = example["audio_hidden_states"][0], expected[index]["audio_hidden_states"][0]
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_encoding_draws_no_random_number(model, processor, files, tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    FeatureCache(model, processor, tmp_path).add(files)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("config", [{"layer_mix": "learned"}, {"freeze_audio_tower": False}])
def test_encoder_whose_output_changes_is_refused(config, tmp_path):
    model = tiny_model(**config)
    with pytest.raises(ValueError, match="cache_features needs a frozen encoder and layer_mix: last"):
        FeatureCache(model, tiny_processor(model), tmp_path)


def test_encoder_that_cannot_be_told_from_others_is_refused(model, processor, tmp_path):
    model.audio_tower.to("meta")
    with pytest.raises(ValueError, match="cannot tell which encoder this is: its base is not known"):
        FeatureCache(model, processor, tmp_path)


def test_features_that_are_not_finite_name_the_recording(model, processor, files, tmp_path, monkeypatch):
    encode = model.audio_family.encode

    def overflow(tower, inputs, lengths):
        output, lengths = encode(tower, inputs, lengths)
        output.last_hidden_state[1, 3, 0] = float("inf")
        return output, lengths

    monkeypatch.setattr(model.audio_family, "encode", overflow)
    cache = FeatureCache(model, processor, tmp_path)
    with pytest.raises(ValueError, match=r"makes of .*/5\.wav is not finite: leave that recording out"):
        cache.add(files)  # the second-longest
    monkeypatch.undo()
    cache.add(files)
    assert all(cache[file].isfinite().all() for file in files)


def test_full_disk_is_told_in_one_sentence(model, processor, files, tmp_path, monkeypatch):
    calls = []

    def fail_at_the_third(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = FeatureCache(model, processor, tmp_path, batch_size=1)
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail_at_the_third)
        with pytest.raises(OSError) as caught:
            cache.add(files)
    assert str(caught.value).startswith(f"No space is left for {cache.folder}: free some, or set feature_cache_dir")
    assert len(FeatureCache(model, processor, tmp_path)._store) == 2
    cache.add(files)
    assert all(cache[file].isfinite().all() for file in files)


def test_recording_that_is_not_there_or_no_audio_is_named(model, processor, files, tmp_path):
    cache = FeatureCache(model, processor, tmp_path)
    with pytest.raises(FileNotFoundError, match="audio '/nowhere/a.wav' is not there"):
        cache.add([*files, "/nowhere/a.wav"])
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="text.wav' is not audio that can be read"):
        cache.add([str(tmp_path / "text.wav")])
    with pytest.raises(KeyError, match="text.wav"):
        cache[str(tmp_path / "text.wav")]


class SecondOfTwoRanks:
    """Stands for accelerate's `PartialState`, where the first rank is on another machine."""

    num_processes, process_index, is_main_process = 2, 1, False
    main_process_first = staticmethod(contextlib.nullcontext)

    def wait_for_everyone(self):
        pass


def test_ranks_that_do_not_share_a_folder_are_told(model, processor, files, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "PartialState", SecondOfTwoRanks)
    cache = FeatureCache(model, processor, tmp_path)
    with pytest.raises(FileNotFoundError, match="were encoded by other ranks.*a folder that all machines share"):
        cache.add(files)


def test_settings_are_written_for_whoever_looks(model, processor, files, tmp_path):
    cache = FeatureCache(model, processor, tmp_path, autocast_dtype=torch.bfloat16)
    cache.add(files)
    settings = json.loads((cache.folder / "settings.json").read_text())
    assert settings == cache.settings
    assert (settings["dtype"], settings["autocast_dtype"]) == ("torch.float32", "torch.bfloat16")
    assert settings["encoder"]["model_type"] == "wavlm" and settings["feature_extractor"]["do_normalize"] is True
