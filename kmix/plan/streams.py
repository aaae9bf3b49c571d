"""Streams of random bits: which mixer owns which, so that no two kinds of draws share a stream."""

from kmix import _checks

# Replicas differ by a multiple of this, see `kmix.prng.bits`.
_END = 0x10000

_RESERVED: dict[str, range] = {}


def reserve(owner: str, first: int, count: int = 16) -> int:
    """Reserve `count` streams for an owner. Layers of different owners stay independent even with the same seed.

    Args:
        owner: Name of the mixer, such as `"CutMix"`.
        first: Number of its first stream, an int. Streams from 1024 on are free for mixers outside kmix.
        count: Number of streams. Defaults to 16.

    Returns:
        `first`, to pass as `stream` to the functions that sample plans.

    Raises:
        ValueError: if one of the streams belongs to another owner, or lies beyond `2**16`.
        TypeError: if an argument has a wrong type.

    Example:
        >>> from kmix.plan import streams
        >>> streams.reserve("MyMix", 1024)
        1024
    """
    if not isinstance(owner, str) or not owner:
        _checks.fail("`owner` must be the name of a mixer.", f"owner={owner!r}", 'For example `"MyMix"`.', TypeError)
    first, count = _checks.integer(first, "first"), _checks.integer(count, "count", 1)
    wanted = range(first, first + count)
    if wanted.stop > _END:
        _checks.fail(f"Streams must lie below {_END}.", f"streams {wanted.start} to {wanted.stop - 1}")
    for other, taken in _RESERVED.items():
        if other != owner and wanted.start < taken.stop and taken.start < wanted.stop:
            _checks.fail(
                "A stream must belong to only one owner: otherwise two mixers would draw the same numbers.",
                f"streams {wanted.start} to {wanted.stop - 1} for {owner!r}, some of which belong to {other!r}",
                "Choose another `first`, from 1024 on.",
            )
    _RESERVED[owner] = wanted
    return first


def check(first: int, count: int) -> None:
    """Raise unless the `count` streams from `first` on are reserved for one owner."""
    first = _checks.integer(first, "stream")
    for taken in _RESERVED.values():
        if taken.start <= first and first + count <= taken.stop:
            return
    _checks.fail(
        "A plan must be drawn from reserved streams.",
        f"streams {first} to {first + count - 1}",
        "Write `stream = kmix.plan.reserve(name, first, count)` and pass that.",
    )


MIXUP = reserve("MixUp", 0)
CUTMIX = reserve("CutMix", 16)
EMBEDDING = reserve("EmbeddingMixup", 32)
CHOICE = reserve("RandomChoice", 48)
PLACE = reserve("MixTrainer", 64)
MOSAIC = reserve("Mosaic", 80)
PAIRING = reserve("pairing", 96)
AUDIO = reserve("AudioMix", 128, 64)
COPY_PASTE = reserve("CopyPaste", 512, 512)
