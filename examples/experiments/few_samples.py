"""Few training images: does mixing make up for the images that are missing, and which way of mixing does?

    python examples/experiments/few_samples.py            # prints a table, writes few_samples.json and a picture
    python examples/experiments/few_samples.py --quick    # one seed, few steps: only to check that it runs

Each method trains on 250, 1000 and 4000 images of Fashion-MNIST. The alphas are those of the papers' experiments on
CIFAR and were not tuned. The network after the last step counts. `MixUp, clean too` trains on the clean batch and
the mixed one: on twice as many samples a step.
"""

from functools import partial

import cases
from cases import Case
from experiment import PLAIN, Method

import kmix

CASES = [Case(250, 800), Case(1000, 800), Case(4000, 2400)]
PLACES = ["input", "conv1", "conv2"]


def either():
    return kmix.RandomChoice([kmix.MixUp(1.0, seed=0), kmix.CutMix(1.0, seed=1)], seed=2)


METHODS = {
    PLAIN: Method,
    "MixUp": partial(Method, trainer_of=lambda model: kmix.MixTrainer(model, kmix.MixUp(1.0, seed=0))),
    "CutMix": partial(Method, trainer_of=lambda model: kmix.MixTrainer(model, kmix.CutMix(1.0, seed=0))),
    "Manifold": partial(
        Method, trainer_of=lambda model: kmix.MixTrainer(model, kmix.EmbeddingMixup(2.0, seed=0), places=PLACES)
    ),
    "MixUp or CutMix": partial(Method, trainer_of=lambda model: kmix.MixTrainer(model, either())),
    "MixUp, clean too": partial(
        Method, trainer_of=lambda model: kmix.MixTrainer(model, kmix.MixUp(1.0, include_clean=True, seed=0))
    ),
}

if __name__ == "__main__":
    cases.main(__doc__, "few_samples", "Test scores with few training images", CASES, METHODS)
