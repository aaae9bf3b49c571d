"""Where to mix: at the input, at hidden layers too, or only late?

    python examples/experiments/where_to_mix.py            # prints a table, writes where_to_mix.json and a picture
    python examples/experiments/where_to_mix.py --quick    # one seed, few steps: only to check that it runs

The question of the Manifold Mixup paper (https://arxiv.org/abs/1806.05236) in small. A method mixes at places of the
network, one of them in each step, drawn anew: at the input, after the first convolution, after the second, or after
the hidden dense layer, which is the last before the output. Everything else is equal, alpha too.
"""

from functools import partial

import cases
from cases import Case
from experiment import PLAIN, Method

import kmix

CASES = [Case(1000, 800), Case(1000, 800, noise=0.5)]
ALPHA = 1.0
PLACES = {
    "input": ["input"],
    "input, conv1": ["input", "conv1"],
    "input, conv1, conv2": ["input", "conv1", "conv2"],
    "conv2 only": ["conv2"],
    "hidden only": ["hidden"],
}


def mixing_at(places):
    return lambda model: kmix.MixTrainer(model, kmix.EmbeddingMixup(ALPHA, seed=0), places=places)


METHODS = {PLAIN: Method} | {name: partial(Method, trainer_of=mixing_at(at)) for name, at in PLACES.items()}

if __name__ == "__main__":
    cases.main(__doc__, "where_to_mix", "Test scores of EmbeddingMixup by its places", CASES, METHODS)
