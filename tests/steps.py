"""Training steps in plain NumPy, and a small model for the tests on many devices."""

import keras
import numpy as np
import oracle

import kmix

RATE = 0.5  # learning rate of every oracle
CLASSES = 4
WAYS = ("mixer", "placed", "places")
PLACES = ("input", "hidden", "top")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def compiled(trainer, **settings):
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True)
    trainer.compile(**{"optimizer": keras.optimizers.SGD(RATE), "loss": loss, **settings})
    return trainer


def mixing_matrix(plan):
    """The matrix that mixes the rows of a batch."""
    matrix = np.diag(plan.lam.astype("float64"))
    matrix[np.arange(len(plan.lam)), plan.permutation] += 1 - plan.lam
    return matrix


def targets(plan, y, w):
    y = oracle.one_hot(y, CLASSES) if np.ndim(y) == 1 else y
    if w is None:
        return oracle.mixup(y, plan.lam, plan.permutation), np.ones(len(y))
    return oracle.weighted(y, w, plan.lam, plan.permutation)


def output_gradient(logits, y, w):
    """Gradient of the mean weighted cross-entropy."""
    return w[:, None] * (oracle.softmax(logits) - y) / len(y)


def batch(n):
    """Inputs, class ids and sample weights."""
    generator = np.random.default_rng(n)
    return numbers(n, 5), generator.integers(0, CLASSES, n), generator.uniform(0.2, 3.0, n).astype("float32")


def trainer_of(way, alpha=0.7, within=None, include_clean=False, **settings):
    """A compiled trainer that mixes the inputs, mixes with a layer in the model, or mixes at one of three places."""
    seed, kind = (3, kmix.MixUp) if way == "mixer" else (5, kmix.EmbeddingMixup)
    mixer = kind(alpha, seed=seed, include_clean=include_clean)
    inputs = keras.Input((5,))
    tensor = keras.layers.Dense(6, activation="tanh", use_bias=False, name="hidden")(inputs)
    tensor = mixer(tensor) if way == "placed" else tensor
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, use_bias=False, name="top")(tensor))
    ways = {"mixer": {"mixer": mixer}, "placed": {}, "places": {"mixer": mixer, "places": PLACES}}
    return compiled(kmix.MixTrainer(model, within=within, **ways[way]), metrics=["accuracy"], **settings)


def weights_of(trainer):
    return [weight.astype("float64") for weight in trainer.model.get_weights()]


def step(way, weights, x, y, w, plan):
    """The weights after one step of SGD on a batch, and the accuracy on its mixed labels."""
    first, second = weights
    mixings = [np.eye(len(x))] * 3
    mixings[{"mixer": 0, "placed": 1, "places": plan.place}[way]] = mixing_matrix(plan)
    below = mixings[0] @ x
    squashed = np.tanh(below @ first)
    state = mixings[1] @ squashed
    logits, (y, w) = mixings[2] @ state @ second, targets(plan, y, w)
    gradient = mixings[2].T @ output_gradient(logits, y, w)
    down = (mixings[1].T @ (gradient @ second.T)) * (1 - squashed**2)
    accuracy = np.mean(logits.argmax(axis=1) == y.argmax(axis=1))
    return [first - RATE * below.T @ down, second - RATE * state.T @ gradient], accuracy


def with_clean(plan):
    """The plan of a batch of clean samples and then the mixed ones."""
    n = len(plan.lam)
    lam, permutation = np.append(np.ones(n), plan.lam), np.append(np.arange(n), plan.permutation + n)
    return plan._replace(lam=lam, permutation=permutation)


def fit(trainer, x, y, w=None, steps=4, **settings):
    """Train on one batch, with one step per epoch."""
    return trainer.fit(
        x, y, sample_weight=w, batch_size=len(x), epochs=steps, shuffle=False, verbose=0, **settings
    ).history


def assert_close(trained, expected):
    for one, other in zip(trained, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
