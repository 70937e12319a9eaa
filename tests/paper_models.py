"""Configurations of the paper's models at full size, for the meta device and for large machines."""

from transformers import T5Config, Wav2Vec2Config, WavLMConfig

from speechverse import SpeechVerseConfig


AUDIO_TOKEN_ID = 32_100


def wavlm_large() -> WavLMConfig:
    return WavLMConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )


def encoder_at_25_hz() -> Wav2Vec2Config:
    """As wide, deep and slow as the paper's Best-RQ encoder."""
    return Wav2Vec2Config(
        hidden_size=768,
        num_hidden_layers=24,
        conv_dim=(512,) * 8,
        conv_stride=(5, 2, 2, 2, 2, 2, 2, 2),
        conv_kernel=(10, 3, 3, 3, 3, 2, 2, 2),
        num_feat_extract_layers=8,
    )


def flan_t5_xl() -> T5Config:
    return T5Config(
        vocab_size=32_128,
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_layers=24,
        num_heads=32,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )


def multitask(audio_config, **config) -> SpeechVerseConfig:
    """One of the paper's multitask models: LoRA of rank 16 on the queries and values of Flan-T5-XL."""
    lora_config = {"r": 16, "lora_alpha": 32, "target_modules": ["q", "v"]}
    return SpeechVerseConfig(
        audio_config, flan_t5_xl(), lora_config=lora_config, audio_token_id=AUDIO_TOKEN_ID, **config
    )
