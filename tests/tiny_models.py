"""Tiny models and tokenizers, made from configurations: random weights, real code paths."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    HubertConfig,
    LlamaConfig,
    MoonshineConfig,
    PreTrainedTokenizerFast,
    T5Config,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration, SpeechVerseProcessor


WAVEFORM_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (8, 8, 5),  # 50 Hz, like the real ones
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = WAVEFORM_SIZES | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}

AUDIO_CONFIGS = {
    "wavlm": lambda: WavLMConfig(**STABLE, num_buckets=32, max_bucket_distance=80),
    "wavlm-group-norm": lambda: WavLMConfig(**WAVEFORM_SIZES, num_buckets=32, max_bucket_distance=80),
    "hubert": lambda: HubertConfig(**STABLE),
    "wav2vec2": lambda: Wav2Vec2Config(**STABLE),
    "wav2vec2-group-norm": lambda: Wav2Vec2Config(**WAVEFORM_SIZES),
    "moonshine": lambda: MoonshineConfig(
        hidden_size=32,
        intermediate_size=37,
        encoder_num_hidden_layers=3,
        decoder_num_hidden_layers=0,
        encoder_num_attention_heads=4,
        encoder_num_key_value_heads=4,
        vocab_size=8,
    ),
    "whisper": lambda: WhisperConfig(
        d_model=32,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        vocab_size=64,
        num_mel_bins=80,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    ),
}

WORDS = "<pad> </s> <unk> <s> user assistant yes no red green blue one two three what is said which colour say it . ?"

TEXT_CONFIGS = {
    "t5": lambda: T5Config(
        vocab_size=32,
        d_model=24,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        initializer_factor=0.5,
    ),
    "llama": lambda: LlamaConfig(
        vocab_size=32,
        hidden_size=24,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
        initializer_range=0.2,
    ),
}
LORA_TARGETS = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"]}
CHAT_TEMPLATE = (
    "{% for message in messages %}<s> user {{ message['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def tiny_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer; T5's ends its inputs with </s>, Llama's has a chat template."""
    vocab = {word: index for index, word in enumerate(WORDS.split())}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Fuse()
    if text == "t5":
        backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", vocab["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        chat_template=CHAT_TEMPLATE if text == "llama" else None,
    )


def spelling_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A tokenizer that writes any word in pieces: T5's as SentencePiece does, without a few letters; Llama's in bytes."""
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    if text == "t5":
        letters = "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + ".,:;=|_'?!()%-"
        pieces = [("\u2581", -2.0), *((letter, -4.0) for letter in letters)]
        pieces += [
            (piece, -3.0) for piece in ("\u2581play", "\u2581red", "_mus", "ic", "\u2581|", "ASR", "\u00e9", ");")
        ]
        backend = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, unk_id=2))
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    else:
        merges = [("\u0120", "p"), ("\u0120p", "l"), ("e", "d"), ("\u0120", "r"), (".", ";"), (")", ";")]
        vocab = special + sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
        backend = Tokenizer(models.BPE({token: index for index, token in enumerate(vocab)}, merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>" if text == "t5" else None,
        bos_token="<s>",
        chat_template=CHAT_TEMPLATE if text == "llama" else None,
    )


def tiny_speller(audio: str = "wavlm", text: str = "t5", seed: int = 0, tasks=None, **config):
    """A model and a processor that can write any word."""
    tokenizer = spelling_tokenizer(text)
    spare = 8 if text == "t5" else 0  # T5 has scores for more ids than it has tokens; others have none for `<audio>`
    model = tiny_model(audio, text, seed, vocab_size=len(tokenizer) + spare, audio_token_id=len(tokenizer), **config)
    return model, SpeechVerseProcessor.for_model(
        model, tasks=tasks, feature_extractor=tiny_feature_extractor(audio), tokenizer=tokenizer
    )


def tiny_feature_extractor(audio: str):
    if audio == "whisper":
        return WhisperFeatureExtractor(feature_size=80)
    normalise = audio != "moonshine"
    return Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)


def tiny_config(
    audio: str = "wavlm", text: str = "t5", lora: bool = True, vocab_size: int | None = None, **config
) -> SpeechVerseConfig:
    config.setdefault("audio_token_id", len(WORDS.split()))
    text_config = TEXT_CONFIGS[text]()
    text_config.vocab_size = vocab_size or text_config.vocab_size
    return SpeechVerseConfig(
        audio_config=AUDIO_CONFIGS[audio](),
        text_config=text_config,
        lora_config={"r": 2, "lora_alpha": 4, "target_modules": LORA_TARGETS[text]} if lora else None,
        **config,
    )


def tiny_model(audio: str = "wavlm", text: str = "t5", seed: int = 0, lora: bool = True, **config):
    """A SpeechVerse model with random weights, large enough that every path carries signal; LoRA's B too."""
    torch.manual_seed(seed)
    config = tiny_config(audio, text, lora, **config)
    model = SpeechVerseForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_mix" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim > 1 and "embed" not in name and "shared" not in name:
                parameter.normal_(std=0.2)
    return model


def tiny_processor(model, audio: str = "wavlm", text: str = "t5", tasks=None) -> SpeechVerseProcessor:
    return SpeechVerseProcessor.for_model(
        model, tasks=tasks, feature_extractor=tiny_feature_extractor(audio), tokenizer=tiny_tokenizer(text)
    )


def save_bases(folder, audio: str = "wavlm", text: str = "t5", seed: int = 0):
    """Writes both bases as a Hub repository would have them; returns their folders."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.manual_seed(seed)
    audio_folder, text_folder = folder / f"tiny-{audio}", folder / f"tiny-{text}"
    AutoModel.from_config(AUDIO_CONFIGS[audio]()).save_pretrained(audio_folder)
    tiny_feature_extractor(audio).save_pretrained(audio_folder)
    auto_class = AutoModelForSeq2SeqLM if text == "t5" else AutoModelForCausalLM
    auto_class.from_config(TEXT_CONFIGS[text]()).save_pretrained(text_folder)
    tiny_tokenizer(text).save_pretrained(text_folder)
    return audio_folder, text_folder


def noise(seconds: float, seed: int = 0):
    """Quiet white noise at 16 kHz: a waveform of `(samples,)`, float32."""
    generator = torch.Generator().manual_seed(seed)
    return (0.1 * torch.randn(round(16_000 * seconds), generator=generator)).numpy()
