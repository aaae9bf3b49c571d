"""Mixing in the worker processes of a PyTorch loader."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from kmix import _checks


class MixedBatches:
    """Mixed batches for a PyTorch `DataLoader`, whose worker processes load, collate and mix them.

    An item is a whole batch: `mixed[step, indices]` collates the examples at `indices` and mixes them with the
    plan of `step`. A numbered batch sampler gives both.

    Args:
        dataset: A PyTorch data set with `__getitem__`, or a sequence of examples. No `IterableDataset`, whose examples
            have no index.
        function: `function(step, batch)` that mixes, such as `layer.at_step`.
        collate_fn: Makes a batch from a list of examples. `torch.utils.data.default_collate` by default.

    Raises:
        TypeError: if `dataset` has no `__getitem__`, or if `function` or `collate_fn` cannot be called.

    Example:
        >>> import torch  # doctest: +SKIP
        >>> from torch.utils.data import BatchSampler, DataLoader, RandomSampler  # doctest: +SKIP
        >>> numbering = kmix.data.Numbering()
        >>> mixed = kmix.data.MixedBatches(dataset, mixup.at_step)  # doctest: +SKIP
        >>> batches = BatchSampler(RandomSampler(dataset), batch_size=128, drop_last=True)  # doctest: +SKIP
        >>> loader = DataLoader(mixed, sampler=numbering(batches), batch_size=None, num_workers=2)  # doctest: +SKIP
    """

    def __init__(
        self, dataset: Any, function: Callable[[int, Any], Any], *, collate_fn: Callable[[Any], Any] | None = None
    ) -> None:
        torch_data: Any = sys.modules.get("torch.utils.data")
        stream = torch_data is not None and isinstance(dataset, torch_data.IterableDataset)
        if stream or not hasattr(dataset, "__getitem__") or isinstance(dataset, type):
            _checks.fail(
                "`MixedBatches` takes examples by their index: a data set with `__getitem__`.",
                f"{dataset!r}" if isinstance(dataset, type) else f"a {type(dataset).__name__}",
                "Mix a stream in the main process: `for step, batch in numbering(loader): layer.at_step(step, batch)`.",
                TypeError,
            )
        for name, value in (("function", function), ("collate_fn", collate_fn)):
            if not callable(value) and (name == "function" or value is not None):
                hint = "Write `layer.at_step`." if name == "function" else ""
                _checks.fail(f"`{name}` must be callable.", f"a {type(value).__name__}", hint, TypeError)
        self.dataset: Any = dataset
        self.function: Callable[[int, Any], Any] = function
        self.collate_fn: Callable[[Any], Any] | None = collate_fn

    def __getitem__(self, numbered: tuple[int, Iterable[int]]) -> Any:
        if not (isinstance(numbered, tuple) and len(numbered) == 2 and hasattr(numbered[1], "__iter__")):
            _checks.fail(
                "An item of `MixedBatches` is a batch: `mixed[step, indices]`.",
                f"{numbered!r}",
                "Write `DataLoader(mixed, sampler=numbering(batch_sampler), batch_size=None)`.",
            )
        step, indices = numbered
        collate = self.collate_fn
        if collate is None:
            from torch.utils import data

            collate = data.default_collate
        return self.function(step, collate([self.dataset[i] for i in indices]))

    def __len__(self) -> int:
        return len(self.dataset)
