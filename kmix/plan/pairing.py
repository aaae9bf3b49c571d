"""Who mixes with whom."""


def uniform(xp, words, shards=1):
    """A permutation of the batch from sorting random words; with shards, one for each shard, `(shards, B / shards)`."""
    return xp.argsort(words if shards == 1 else xp.reshape(words, (shards, -1)))
