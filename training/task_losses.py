"""The loss of each task, out of batches that mix them."""

import torch
from torch.nn import functional

from ..processing.processing_speechverse import IGNORED_LABEL


NO_TASK = "no_task"  # how the loss of samples without one is called


def task_name(tasks: tuple[str, ...]) -> str:
    """How the loss of a sample's task, or of several together, is called."""
    return "+".join(tasks) or NO_TASK


@torch.no_grad()
def sample_losses(logits: torch.Tensor, labels: torch.Tensor, shifted: bool) -> torch.Tensor:
    """Summed loss and number of tokens of each sample, `(batch_size, 2)`, float32.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, length, vocab_size)`): the model's.
        labels (`torch.LongTensor` of shape `(batch_size, length)`): -100 where nothing is to be learned.
        shifted (`bool`): whether a logit predicts the label after it, as in a decoder-only LLM.
    """
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    labels = labels.to(logits.device)
    rows = []
    for row, targets in zip(logits, labels, strict=True):  # one by one: all of a batch in fp32 is large
        total = functional.cross_entropy(row.float(), targets, ignore_index=IGNORED_LABEL, reduction="sum")
        rows.append(torch.stack([total, (targets != IGNORED_LABEL).sum().float()]))
    return torch.stack(rows)


class TaskLosses:
    """Sums of losses and tokens by task, on the device, until they are asked for.

    Args:
        names (`list[str]`): of all tasks, the same on every rank.
        device (`torch.device`): where the sums are.
    """

    def __init__(self, names: list[str], device: torch.device):
        self.names = sorted(names)
        self._sums = torch.zeros(len(self.names), 2, device=device)

    def add(self, names: list[str], losses: torch.Tensor) -> None:
        """Counts samples of these tasks, by what [`sample_losses`] gives."""
        places = torch.tensor([self.names.index(name) for name in names], device=self._sums.device)
        self._sums.index_add_(0, places, losses.to(self._sums.device))

    def take(self, reduce) -> dict[str, float]:
        """Mean loss by task (nats per token) since the last call, of the tasks that occurred.

        Args:
            reduce (`Callable`): sums a tensor over all ranks.
        """
        sums = reduce(self._sums)
        self._sums = torch.zeros_like(self._sums)
        rows = zip(self.names, sums.tolist(), strict=True)
        return {name: total / tokens for name, (total, tokens) in rows if tokens}
