"""What all ranks of a run have to decide alike."""

import torch
import torch.distributed as dist


def any_rank(flag: bool, args) -> bool:
    """Whether the flag is set on any rank; all of them have to call this. One rank alone sends nothing.

    Args:
        flag (`bool`): this rank's.
        args ([`~transformers.TrainingArguments`]): the run's.
    """
    if args.world_size == 1:
        return flag
    flags = torch.tensor([flag], dtype=torch.int32, device=args.device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())
