"""The paper's conventional classifier of paralinguistic tasks: a frozen encoder's last layer, a feed-forward layer, a GRU of two
layers, the mean over frames, two feed-forward layers, softmax."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ...modeling_speechverse.audio_encoders import length_mask


class SpeechClassifierConfig(PreTrainedConfig):
    """Configuration of [`SpeechClassifier`]; `id2label` has the classes.

    Args:
        task (`str`, *optional*): id of the task that it was trained for.
        audio_base (`dict`, *optional*): the encoder: `id`, `revision` and `fingerprint`. Its weights are not in a checkpoint.
        audio_dtype (`str`, *optional*, defaults to `"float32"`): of the encoder's weights.
        autocast_dtype (`str`, *optional*): what the encoder computes in, where that is another dtype.
        input_size (`int`, *optional*, defaults to 512): width of the encoder.
        hidden_size (`int`, *optional*, defaults to 256): width of all layers here.
        num_gru_layers (`int`, *optional*, defaults to 2): layers of the GRU, which reads forwards.
    """

    model_type = "speech-classifier"

    def __init__(
        self,
        task=None,
        audio_base=None,
        audio_dtype="float32",
        autocast_dtype=None,
        input_size=512,
        hidden_size=256,
        num_gru_layers=2,
        **kwargs,
    ):
        self.task = task
        self.audio_base = audio_base
        self.audio_dtype = audio_dtype
        self.autocast_dtype = autocast_dtype
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_gru_layers = num_gru_layers
        super().__init__(**kwargs)

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the logits."""
        return [self.id2label[index] for index in range(len(self.id2label))]


class SpeechClassifier(PreTrainedModel):
    """Tells which class a recording is of, by what a frozen encoder makes of it."""

    config_class = SpeechClassifierConfig
    main_input_name = "audio_hidden_states"

    def __init__(self, config: SpeechClassifierConfig):
        super().__init__(config)
        width = config.hidden_size
        self.input_layer = nn.Linear(config.input_size, width)
        self.gru = nn.GRU(width, width, config.num_gru_layers, batch_first=True)
        self.hidden_layer = nn.Linear(width, width)
        self.output_layer = nn.Linear(width, len(config.id2label))
        self.post_init()

    def _init_weights(self, module):
        """Leaves PyTorch's own: transformers' normal draw of 0.02 starts these layers too small to learn quickly."""

    def forward(
        self,
        audio_hidden_states: torch.FloatTensor,
        audio_hidden_states_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
    ) -> SequenceClassifierOutput:
        """
        Args:
            audio_hidden_states (`torch.FloatTensor` of shape `(batch, frames, input_size)`): the encoder's last layer.
            audio_hidden_states_mask (`torch.LongTensor` of shape `(batch, frames)`, *optional*): 1 on real frames, which
                come first.
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*): indices of the classes.

        Returns:
            `logits` `(batch, classes)` and, with labels, `loss`, their plain cross entropy.
        """
        batch_size, length = audio_hidden_states.shape[:2]
        if audio_hidden_states_mask is None:
            audio_hidden_states_mask = audio_hidden_states.new_ones(batch_size, length, dtype=torch.long)
        lengths = audio_hidden_states_mask.sum(-1)
        hidden_states = nn.functional.relu(self.input_layer(audio_hidden_states.to(self.dtype)))
        # It reads forwards, so what lies behind a row's end changes nothing before it.
        hidden_states, _ = self.gru(hidden_states)
        hidden_states = hidden_states.masked_fill(~length_mask(lengths, length)[..., None], 0.0)
        mean = hidden_states.sum(1) / lengths[:, None]
        logits = self.output_layer(nn.functional.relu(self.hidden_layer(mean)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(SpeechClassifierConfig.model_type, SpeechClassifierConfig, exist_ok=True)
AutoModelForAudioClassification.register(SpeechClassifierConfig, SpeechClassifier, exist_ok=True)
