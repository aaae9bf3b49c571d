"""Who mixes with whom."""


def uniform(xp, words, shards=1):
    """A permutation of the batch by sorting random words; with shards one of each shard, `(shards, B / shards)`."""
    return xp.argsort(words if shards == 1 else xp.reshape(words, (shards, -1)))
