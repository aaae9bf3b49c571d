"""Who mixes with whom: are partners of another class, or of the same class, better than random ones?

    python examples/experiments/pairing_rules.py            # prints a table, writes pairing_rules.json and a picture
    python examples/experiments/pairing_rules.py --quick    # one seed, few steps: only to check that it runs

MixUp with the three rules of `kmix.pairing` that need no settings, with few images and with wrong labels. "Class" is
what the labels say, so a rule goes wrong with them. In a batch of 100 images of 10 classes, every image has partners of
both kinds, and a random partner is of another class nine times in ten.
"""

from functools import partial

import cases
from cases import Case
from experiment import PLAIN, Method

import kmix

CASES = [Case(250, 800), Case(1000, 800), *(Case(2000, 600, noise) for noise in (0.2, 0.5, 0.8))]
RULES = {"MixUp": "random", "MixUp, other classes": "different_labels", "MixUp, same class": "same_labels"}


def mixup(model, pairing):
    return kmix.MixTrainer(model, kmix.MixUp(1.0, pairing=pairing, seed=0))


METHODS = {PLAIN: Method} | {
    name: partial(Method, trainer_of=partial(mixup, pairing=pairing)) for name, pairing in RULES.items()
}

if __name__ == "__main__":
    cases.main(__doc__, "pairing_rules", "Test scores by who mixes with whom", CASES, METHODS)
