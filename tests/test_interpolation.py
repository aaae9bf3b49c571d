"""`kmix.diagnostics.interpolation` against NumPy."""

import keras
import numpy as np
import pytest

import kmix
from kmix.diagnostics import interpolation

N, FEATURES, CLASSES = 40, 5, 4


def data(seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(N, FEATURES)).astype("float32"), generator.integers(0, CLASSES, N)


def linear(activation="softmax", units=CLASSES):
    return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(units, activation=activation)])


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def partners():
    """The cycle through all samples, from the permutation that MixUp draws."""
    sigma = kmix.MixUp(1.0, seed=3).plan(0, N).permutation
    return np.roll(sigma, -1)[np.argsort(sigma)]


@pytest.mark.fast("True")
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_linear_model(from_logits):
    x, y = data()
    model = linear(None if from_logits else "softmax")
    found = interpolation(model, x, y, points=5, seed=3, from_logits=from_logits)
    kernel, bias = (np.asarray(weight, "float64") for weight in model.get_weights())
    partner = partners()
    assert (partner != np.arange(N)).all()
    np.testing.assert_allclose(found.positions, [0, 0.25, 0.5, 0.75, 1.0])
    for t, neither, norm in zip(found.positions, found.neither, found.gradient, strict=True):
        between = (1 - t) * x + t * x[partner]
        labels = (1 - t) * np.eye(CLASSES)[y] + t * np.eye(CLASSES)[y[partner]]
        p = softmax(between @ kernel + bias)
        classes = p.argmax(axis=1)
        np.testing.assert_allclose(neither, np.mean((classes != y) & (classes != y[partner])), atol=1e-9)
        np.testing.assert_allclose(norm, np.linalg.norm((p - labels) @ kernel.T, axis=1).mean(), atol=1e-6)
    assert found.pairs == N


def test_given_pairs():
    x, y = data()
    model, pairs = linear(), np.array([[3, 17], [0, 0], [39, 3]])
    found = interpolation(model, x, y, points=3, pairs=pairs)
    kernel, bias = (np.asarray(weight, "float64") for weight in model.get_weights())
    labels = np.eye(CLASSES)[y][pairs].mean(axis=1)
    p = softmax(x[pairs].mean(axis=1) @ kernel + bias)
    neither = (p.argmax(axis=1)[:, None] != y[pairs]).all(axis=1)
    np.testing.assert_allclose(found.neither[1], neither.mean(), atol=1e-9)
    np.testing.assert_allclose(found.gradient[1], np.linalg.norm((p - labels) @ kernel.T, axis=1).mean(), atol=1e-6)
    assert found.pairs == 3


@pytest.mark.slow
def test_one_column_is_two_classes():
    x, y = data()
    y = (y % 2)[:, None]
    single = linear("sigmoid", 1)
    both = linear("softmax", 2)
    kernel, bias = single.get_weights()
    both.set_weights([np.concatenate([0 * kernel, kernel], axis=1), np.concatenate([0 * bias, bias])])
    one, two = (interpolation(model, x, y, points=3) for model in (single, both))
    np.testing.assert_allclose(one.neither, two.neither)
    np.testing.assert_allclose(one.gradient, two.gradient, rtol=1e-3)


@pytest.mark.slow
def test_at_a_hidden_layer():
    y = data()[1]
    ids = np.random.default_rng(1).integers(0, 9, (N, 6))
    inputs = keras.Input((6,), dtype="int32")
    hidden = keras.layers.GlobalAveragePooling1D(name="pooled")(keras.layers.Embedding(9, FEATURES)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax", name="head")(hidden))
    found = interpolation(model, ids, y, points=4, layer_name="pooled")
    tail = linear()
    tail.set_weights(model.get_layer("head").get_weights())
    states = keras.Model(inputs, hidden).predict(ids, verbose=0)
    expected = interpolation(tail, states, y, points=4)
    np.testing.assert_allclose(found.neither, expected.neither)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-5)


def text_model(mixing):
    """Words that are padded with 0, and a mean over those that are not."""
    ids, embed = keras.Input((6,), dtype="int32"), keras.layers.Embedding(9, FEATURES, mask_zero=True, name="embed")
    tail = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(CLASSES, activation="softmax")]
    if not mixing:
        return keras.Sequential([ids, embed, *tail])
    return keras.Model(ids, tail[1](tail[0](kmix.EmbeddingMixup(0.2, name="mixup")(embed(ids)))))


@pytest.mark.fast("True-mixup")
@pytest.mark.parametrize(("mixing", "name"), [(False, "embed"), (True, "embed"), (True, "mixup")])
def test_padding_masks_are_united_between_the_ends(mixing, name):
    generator, y = np.random.default_rng(2), data()[1]
    lengths = generator.integers(1, 7, N)
    ids = np.where(np.arange(6) < lengths[:, None], generator.integers(1, 9, (N, 6)), 0)
    model, partner = text_model(mixing), partners()
    found = interpolation(model, ids, y, points=3, layer_name=name, seed=3)
    table, kernel, bias = (np.asarray(weight, "float64") for weight in model.get_weights())
    for t, neither, norm in zip(found.positions, found.neither, found.gradient, strict=True):
        words = (1 - t) * table[ids] + t * table[ids[partner]]
        own, other = ids != 0, ids[partner] != 0
        mask = {0.0: own, 0.5: own | other, 1.0: other}[t]
        count = mask.sum(axis=1, keepdims=True)
        p = softmax((words * mask[..., None]).sum(axis=1) / count @ kernel + bias)
        labels = (1 - t) * np.eye(CLASSES)[y] + t * np.eye(CLASSES)[y[partner]]
        classes = p.argmax(axis=1)
        np.testing.assert_allclose(neither, np.mean((classes != y) & (classes != y[partner])), atol=1e-9)
        # Each word that counts has the gradient of the mean, divided by their number.
        expected = np.linalg.norm((p - labels) @ kernel.T, axis=1) / np.sqrt(count[:, 0])
        np.testing.assert_allclose(norm, expected.mean(), rtol=1e-4)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MultiHeadAttention", "Attention", "AdditiveAttention", "LSTM"])
def test_layers_that_read_the_mask_when_they_run(kind):
    keras.utils.set_random_seed(1)
    ids = keras.Input((6,), dtype="int32")
    words = keras.layers.Embedding(9, FEATURES, mask_zero=True, name="embed")(ids)
    layers = keras.layers
    seen = {
        "MultiHeadAttention": lambda: layers.MultiHeadAttention(2, 4)(words, words),
        "Attention": lambda: layers.Attention()([words, words]),
        "AdditiveAttention": lambda: layers.AdditiveAttention()([words, words]),
        "LSTM": lambda: layers.LSTM(4, return_sequences=True)(words),
    }[kind]()
    model = keras.Model(ids, layers.Dense(CLASSES, "softmax")(layers.GlobalAveragePooling1D()(seen)))
    generator = np.random.default_rng(0)
    x, y = generator.integers(1, 9, (96, 6)), generator.integers(0, CLASSES, 96)
    x = np.where(np.arange(6) < generator.integers(1, 7, 96)[:, None], x, 0)
    # Both ends of a pair are one sample, so that nothing is joined.
    found = interpolation(model, x, y, points=2, layer_name="embed", pairs=np.stack([np.arange(96)] * 2, 1))
    np.testing.assert_allclose(found.neither, np.mean(model.predict(x, verbose=0).argmax(axis=1) != y))


@pytest.mark.slow
def test_inputs_in_a_structure_and_a_trainer():
    x, y = data()
    inputs = {name: keras.Input((FEATURES,), name=name) for name in "ab"}
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, outputs)
    found = interpolation(kmix.MixTrainer(model, kmix.MixUp()), {"a": x, "b": -x}, y, points=3, batch_size=7)
    again = interpolation(model, {"a": x, "b": -x}, np.eye(CLASSES)[y], points=3)
    np.testing.assert_allclose(found.gradient, again.gradient, rtol=1e-5)
    np.testing.assert_allclose(found.neither, again.neither)


@pytest.mark.slow
@pytest.mark.alike
def test_training_between_samples_lowers_both_curves():
    """What it is for: a network that saw mixed samples changes evenly."""
    generator = np.random.default_rng(0)
    centres = 2 * generator.normal(size=(CLASSES, FEATURES))
    y = np.arange(200) % CLASSES
    x = (centres[y] + generator.normal(size=(200, FEATURES))).astype("float32")
    found = {}
    for name in ("plain", "mixup"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        trained = model if name == "plain" else kmix.MixTrainer(model, kmix.MixUp(1.0, seed=1))
        trained.compile(keras.optimizers.Adam(0.01), kmix.losses.SoftLabelCrossentropy())
        trained.fit(x, y, epochs=60, batch_size=50, verbose=0)
        found[name] = interpolation(model, x, y, points=3)
    assert found["mixup"].gradient[1] < found["plain"].gradient[1]


def test_it_prints_and_draws():
    x, y = data()
    found = interpolation(linear(), x, y, points=3)
    assert "Between 40 pairs" in str(found)
    assert found.to_dict() == {
        "positions": [0.0, 0.5, 1.0],
        "neither": found.neither.tolist(),
        "gradient": found.gradient.tolist(),
        "pairs": N,
    }
    figure = found.plot(label="one")
    assert found.plot(figure=figure, label="two") is figure
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    assert len({line.get_linestyle() for line in left.lines}) == 2
    np.testing.assert_allclose(left.lines[0].get_ydata(), found.neither)
    np.testing.assert_allclose(right.lines[0].get_ydata(), found.gradient)
    assert left.get_ylim()[0] == 0


def two_outputs():
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, [keras.layers.Dense(CLASSES, activation="softmax")(inputs) for _ in range(2)])


def shared_layer_model():
    inputs = keras.Input((FEATURES,))
    hidden = keras.layers.Dense(FEATURES, name="branch")(inputs)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(keras.layers.Add()([hidden, inputs])))


@pytest.mark.parametrize(
    ("arguments", "settings", "match"),
    [
        (lambda x, y: (linear(), x[:1], y[:1]), {}, "two samples"),
        (lambda x, y: (linear(), x, {"a": y, "b": y}), {}, "one output"),
        (lambda x, y: (two_outputs(), x, y), {}, "one output"),
        (lambda x, y: (linear(), iter([(x, y, y)])), {}, "sample weights"),
        (lambda x, y: (linear(), iter([{"x": x, "y": y}])), {}, "labelled batches"),
        (lambda x, y: (linear(), {"images": x, "labels": y}), {}, "`y` must hold"),
        (lambda x, y: (linear(), zip(x, y, strict=True)), {}, "single samples"),
        (lambda x, y: (linear(), x, y), {"batch_size": 0}, "batch_size"),
        (lambda x, y: (linear(), x, y), {"points": 1}, "points"),
        (lambda x, y: (linear(), x, y[:5]), {}, "a label for each"),
        (lambda x, y: (linear(), x, y + 9), {}, "Class ids must be"),
        (lambda x, y: (linear(None), x, y), {}, "from_logits"),
        (lambda x, y: (linear(), x.astype("int32"), y), {}, "layer_name="),
        (lambda x, y: (linear(), x, y), {"layer_name": "nowhere"}, "must name a layer"),
        (lambda x, y: (linear(), x, y), {"pairs": np.array([1, 2])}, r"\(P, 2\)"),
        (lambda x, y: (linear(), x, y), {"pairs": np.ones((3, 2))}, "integers"),
        (lambda x, y: (linear(), x, y), {"pairs": [[0, N]]}, "rows of `x`: 0 to 39"),
        (lambda x, y: (linear(), x, y), {"pairs": [[-1, 0]]}, "rows of `x`"),
        (lambda x, y: (shared_layer_model(), x, y), {"layer_name": "branch"}, "must pass"),
    ],
)
def test_wrong_arguments(arguments, settings, match):
    with pytest.raises(ValueError, match=match):
        interpolation(*arguments(*data()), **settings)


def test_settings_are_of_their_types():
    for settings in ({"from_logits": "abc"}, {"points": 2.5}, {"seed": "abc"}):
        with pytest.raises(TypeError, match=next(iter(settings))):
            interpolation(linear(), *data(), **settings)
