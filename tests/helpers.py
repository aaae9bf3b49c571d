"""What the tests share: small batches and layers, the code paths of a batch, what a refusal is, and small trainers.

Where the way to call a layer changes, `send` changes; where that to mix with plain operations does, `plain`.
"""

import contextlib
import re
import socket

import keras
import numpy as np
import oracle
import pytest

import kmix
from kmix import _backend

BACKEND = keras.backend.backend()
CLASSES = 3
tree = keras.tree


class NotInstalled:
    """In place of TensorFlow: what needs it is skipped."""

    def __getattr__(self, name):
        if name.startswith(("_", "pytest")):  # what Python and pytest ask of everything that a module holds
            raise AttributeError(name)
        pytest.skip("TensorFlow is not installed", allow_module_level=True)


try:
    import tensorflow as tf
except ImportError:
    tf = NotInstalled()
WITH_TENSORFLOW = not isinstance(tf, NotInstalled)


def on(*backends, why):
    """A mark: the test runs on these backends alone."""
    return pytest.mark.skipif(BACKEND not in backends, reason=why)


def free_address():
    """`host:port`, a port of this machine that nothing listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


# Arrays and layers.


def to_numpy(structure):
    """Tensors of any framework as NumPy arrays."""

    def array(t):
        if WITH_TENSORFLOW and tf.is_tensor(t):
            return t.numpy()
        return None if t is None else keras.ops.convert_to_numpy(t)

    return tree.map_structure(array, structure)


def to_native(structure):
    """NumPy arrays as tensors of Keras' backend."""
    return tree.map_structure(lambda a: None if a is None else keras.ops.convert_to_tensor(a), structure)


def native(batch):
    """The same for a batch with values of 64 bits, of which JAX has none."""
    if BACKEND == "jax":
        batch = tree.map_structure(lambda a: a.astype("float32") if a.dtype == "float64" else a, batch)
    return to_native(batch)


def data(n=6, shape=(8, 8, 3), seed=0):
    """Inputs in [0, 1)."""
    return np.random.default_rng(seed).uniform(size=(n, *shape)).astype("float32")


def ids(n=6, classes=CLASSES, seed=1):
    """Class ids that include every class."""
    return np.random.default_rng(seed).permutation(np.arange(n) % classes)


def one_hot(y, classes=CLASSES):
    return oracle.one_hot(y, classes).astype("float32")


def boxes(classes="classes", n=6):
    """Two boxes for each of n images, and one of padding."""
    objects = {"boxes": data(n, (3, 4), seed=2) * 8, classes: ids(3 * n).reshape(n, 3).astype("float32")}
    objects["boxes"][:, 2], objects[classes][:, 2] = -1, -1
    return objects


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "seed": 3, **settings})


def embedding(**settings):
    return kmix.EmbeddingMixup(**{"alpha": 1.0, "seed": 4, **settings})


def cutmix(**settings):
    return kmix.CutMix(**{"alpha": 1.0, "seed": 5, "data_format": "channels_last", **settings})


def choice(**settings):
    """Pastes half of the batches."""
    return kmix.RandomChoice([mixup(**settings), cutmix(**settings)], seed=6)


LAYERS = {"MixUp": mixup, "EmbeddingMixup": embedding, "CutMix": cutmix, "RandomChoice": choice}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
blending = pytest.mark.parametrize("make", [mixup, embedding], ids=["MixUp", "EmbeddingMixup"])


def plan_of(layer, step=0, n=6, spatial=(8, 8)):
    return layer.plan(step, n, spatial_shape=spatial)


def mixed_inputs(x, plan):
    """Inputs with channels last, mixed by the formulas of the papers."""
    if plan.box is None:
        return oracle.mixup(x, plan.lam, plan.permutation)
    return oracle.cutmix(x, plan.box, plan.permutation)


# Code paths: the ways of a batch to a layer. All must give the same result.

CODE_PATHS = ("numpy", "native", "tfdata")
every_path = pytest.mark.parametrize("path", CODE_PATHS)
# Layers and paths are independent, so that each meets some of the other.
LAYERS_AND_PATHS = [
    (mixup, "numpy"),
    (embedding, "native"),
    (cutmix, "tfdata"),
    (choice, "numpy"),
    (cutmix, "native"),
]
every_layer_and_path = pytest.mark.parametrize(("make", "path"), LAYERS_AND_PATHS)


def plain(function):
    """The result of `function` with plain operations: without views, threads and compiled programs."""
    with _backend.fusing(False):
        return function()


def send(layer, batch):
    """The result of a call of the layer on a batch in any form."""
    return layer(*batch) if isinstance(batch, tuple) else layer(batch)


def at_step(path, layer, step, batch):
    """`layer.at_step(step, batch)` on a code path, as NumPy."""
    if path == "tfdata":
        return to_numpy(next(iter(pipeline(layer.at_step, [batch], start=step))))
    given = batch if path == "numpy" else to_native(batch)
    result = layer.at_step(step, given)
    kind = (lambda leaf: isinstance(leaf, np.ndarray)) if path == "numpy" else keras.ops.is_tensor
    assert all(map(kind, filter(lambda leaf: leaf is not None, tree.flatten(result))))
    if path == "native":
        assert_like_plain(to_numpy(result), to_numpy(plain(lambda: layer.at_step(step, given))))
    return to_numpy(result)


def assert_like_plain(ours, expected):
    """Assert that the short cuts that eager tensors take give what plain operations give."""
    for one, other in zip(tree.flatten(ours), tree.flatten(expected), strict=True):
        if one is not None:
            assert one.dtype == other.dtype
            rounding = 1e-2 if one.itemsize == 2 else 1e-5
            np.testing.assert_allclose(one.astype("float64"), other.astype("float64"), rounding, rounding)


def at_steps(path, layer, steps, batch):
    """`layer.at_step(step, batch)` for the steps 0, 1, ... on a code path, as a list."""
    if path == "tfdata":
        return [to_numpy(mixed) for mixed in pipeline(layer.at_step, [batch] * steps)]
    return [at_step(path, layer, step, batch) for step in range(steps)]


def call(path, layer, batch):
    """A call of the layer on a code path, as NumPy."""
    if path == "tfdata":
        return to_numpy(next(iter(tf.data.Dataset.from_tensors(batch).map(layer))))
    return to_numpy(send(layer, batch if path == "numpy" else to_native(batch)))


def pipeline(function, batches, start=0, parallel=None):
    """`function(number, batch)` mapped over batches in tf.data. Each batch may have its own shape."""
    numbers = tf.data.Dataset.range(start, start + len(batches))
    if len(batches) == 1:
        return tf.data.Dataset.zip(numbers, tf.data.Dataset.from_tensors(batches[0])).map(function)
    stacked = tree.map_structure(lambda *leaves: np.stack(leaves), *batches)
    data = tf.data.Dataset.from_tensor_slices(stacked)
    return tf.data.Dataset.zip(numbers, data).map(function, num_parallel_calls=parallel)


def assert_near(ours, expected, atol=1e-5):
    """Arrays of any framework, in the same structure, within rounding."""
    tree.assert_same_structure(ours, expected)
    for one, other in zip(tree.flatten(to_numpy(ours)), tree.flatten(expected), strict=True):
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=atol)


# Refusals.

# The values of symbolic tensors are known when the graph runs, and TensorFlow then raises its own error.
REFUSALS = (ValueError, tf.errors.InvalidArgumentError) if WITH_TENSORFLOW else (ValueError,)


def ways(layer, batch):
    """Every way to send a batch, a tuple or a dictionary, to a layer, as functions without arguments."""
    anywhere = {
        "call with NumPy": lambda: send(layer, batch),
        "at_step with NumPy": lambda: layer.at_step(0, batch),
        "call with native tensors": lambda: send(layer, native(batch)),
        "at_step with native tensors": lambda: layer.at_step(0, native(batch)),
    }
    if not WITH_TENSORFLOW:
        return anywhere
    ds = tf.data.Dataset.from_tensors(batch)
    return anywhere | {
        "call with TensorFlow's": lambda: send(layer, tf.nest.map_structure(tf.constant, batch)),
        "ds.map(layer)": lambda: next(iter(ds.map(layer))),
        "ds.enumerate().map(layer.at_step)": lambda: next(iter(ds.enumerate().map(layer.at_step))),
    }


def refused(layer, batch, *words, good=None, every_way=True):
    """Assert that a layer refuses a batch on every way (or only with NumPy), with these words, and counts nothing.

    `good` is a batch (x, y) that it accepts.
    """
    for name, way in list(ways(layer, batch).items())[: None if every_way else 2]:
        if name == "ds.map(layer)" and good is not None:
            counts_from_zero(layer, good)
        raises(way, *words, name=name)
    if good is not None and not every_way:
        counts_from_zero(layer, good)


def refused_by_all(settings, batch, *words, makes=LAYERS, **others):
    """Assert that all layers refuse a batch, one of them on every way."""
    turn = sum(map(ord, repr(words) + repr(settings))) % len(makes)
    for i, name in enumerate(makes):
        refused(LAYERS[name](**settings), batch, *words, every_way=i == turn, **others)


def counts_from_zero(layer, good):
    """Assert that a layer has not yet counted a batch."""
    for ours, expected in zip(*map(tree.flatten, (layer(*good), layer.at_step(0, good))), strict=True):
        np.testing.assert_array_equal(ours, expected, err_msg="a refused batch was counted")


def raises(function, *words, name="", errors=REFUSALS):
    """Assert that a function raises one of `errors`, with these words (regular expressions) in any case."""
    text = returned = None
    try:
        returned = function()
    except errors as error:
        # TensorFlow escapes the quotes.
        text = str(error).replace('\\"', '"').replace("\\'", "'")
    if text is None:
        pytest.fail(f"{name}: nothing raised, but {returned!r:.200} was returned")
    missing = [word for word in words if not re.search(word, text, re.IGNORECASE)]
    assert not missing, f"{name}: the error does not say {missing}: {text}"


# Small trainers.


def network(columns=CLASSES, activation="softmax", shape=(5,), hidden=()):
    """Dense layers on vectors. Seeded, so that each call gives the same weights."""
    keras.utils.set_random_seed(1)
    inputs = tensor = keras.Input(shape)
    for i, units in enumerate(hidden):
        tensor = keras.layers.Dense(units, activation="tanh", name=f"hidden_{i}")(tensor)
    return keras.Model(inputs, keras.layers.Dense(columns, activation=activation, name="top")(tensor))


def deep():
    return network(hidden=(6, 4))


def placed_model():
    """A model with a mixing layer behind a linear one."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = embedding(name="mixing")(keras.layers.Dense(6, name="hidden")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="top")(hidden))


def unbuilt():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Dense(6), keras.layers.Dense(4), keras.layers.Dense(CLASSES, "softmax")])


def trainer_of(
    model=None, loss=None, rate=0.0, mixer=None, placed=False, metrics=None, weighted_metrics=None, **settings
):
    """A compiled trainer that mixes with `mixer`, with MixUp, or with the layers `placed` in the model.

    At a learning rate of 0 no weight changes, and one can compute the loss of a step by hand.
    """
    mixer = mixup() if mixer is None and not placed else mixer
    trainer = kmix.MixTrainer(network() if model is None else model, mixer=mixer, **settings)
    loss = kmix.losses.SoftLabelCrossentropy() if loss is None else loss
    trainer.compile(keras.optimizers.SGD(rate), loss, metrics=metrics, weighted_metrics=weighted_metrics)
    return trainer


def fit(trainer, x, y, **settings):
    """The logs of one step on one batch."""
    settings = {"batch_size": len(tree.flatten(x)[0]), "shuffle": False, "verbose": 0, **settings}
    return {name: values[-1] for name, values in trainer.fit(x, y, **settings).history.items()}


def evaluate(model, x, y, **settings):
    return model.evaluate(x, y, batch_size=len(tree.flatten(x)[0]), verbose=0, return_dict=True, **settings)


def predictions(model, x):
    """What a model predicts. Eagerly, since to compile `predict` takes long."""
    return to_numpy(model(keras.ops.convert_to_tensor(np.asarray(x, "float32")), training=False))


def step_of(trainer, x, y, **settings):
    """The logs of the next step on one batch, its plan, and what the model predicts for inputs mixed by MixUp."""
    number, logs = int(trainer.step), fit(trainer, x, y, **settings)
    plan = trainer.plan(number, len(x))
    return logs, plan, predictions(trainer.model, oracle.mixup(x, *plan[:2]))


def mixed_loss(trainer, x, y, step=0, weights=None):
    """The cross-entropy of a step on mixed inputs and labels, in NumPy, from the current predictions of the model."""
    plan = trainer.plan(step, len(x))
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    if weights is None:
        return oracle.crossentropy(oracle.mixup(y, *plan[:2]), p).mean()
    labels, weights = oracle.weighted(y, weights, *plan[:2])
    return (weights * oracle.crossentropy(labels, p)).mean()


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@contextlib.contextmanager
def no_weight_changes(model):
    before = model.get_weights()
    yield
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def right_or_refused(model, function, expected, *words):
    """Assert that a function returns the expected logs, or raises with these words before a weight changes."""
    before = model.get_weights()
    try:
        logs = function()
    except REFUSALS as error:
        text = str(error)
        missing = [word for word in words if word not in text]
        if missing:
            pytest.fail(f"the error does not say {missing}: {text}")
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        return False
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name
    return True
