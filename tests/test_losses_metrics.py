"""The loss and the metrics, against NumPy and against Keras."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from oracle import binary_crossentropy, calibration_error, crossentropy, dense, one_hot, softmax

import kmix
from kmix.losses import SoftLabelCrossentropy
from kmix.metrics import ExpectedCalibrationError, SoftLabelAccuracy

LOGITS = np.random.default_rng(0).normal(0, 3, (40, 5)).astype("float32")
P = softmax(LOGITS.astype("float64"))
IDS = np.random.default_rng(1).integers(0, 5, 40)
SOFT = np.random.default_rng(2).dirichlet(np.ones(5) / 2, 40)
# Also pairs of one class, and shares of 0 and 1.
SHARES = np.clip(np.random.default_rng(3).uniform(-0.2, 1.2, 40), 0, 1)
PAIRS = np.stack([IDS, np.roll(IDS, 1), SHARES], axis=1).astype("float32")
WEIGHTS = np.random.default_rng(4).uniform(0, 2, 40)
NUMPY = ops.convert_to_numpy


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("labels", ["ids", "column", "one-hot", "soft"])
def test_crossentropy(labels, smoothing, from_logits):
    y = {"ids": IDS, "column": IDS[:, None], "one-hot": one_hot(IDS, 5), "soft": SOFT}[labels]
    soft = SOFT if labels == "soft" else one_hot(IDS, 5)
    soft = soft * (1 - smoothing) + smoothing / 5
    loss = SoftLabelCrossentropy(from_logits=from_logits, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(NUMPY(loss(y, LOGITS if from_logits else P)), crossentropy(soft, P), rtol=1e-4)
    mean = SoftLabelCrossentropy(from_logits=from_logits, label_smoothing=smoothing)
    peer = keras.losses.CategoricalCrossentropy(from_logits=from_logits, label_smoothing=smoothing)
    given = SOFT if labels == "soft" else one_hot(IDS, 5)
    np.testing.assert_allclose(
        mean(y, LOGITS if from_logits else P, sample_weight=WEIGHTS),
        peer(given, LOGITS if from_logits else P, sample_weight=WEIGHTS),
        rtol=1e-4,
    )


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multi_label(smoothing, from_logits):
    p = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    loss = SoftLabelCrossentropy(from_logits=from_logits, label_smoothing=smoothing, multi_label=True, reduction=None)
    y = SOFT * (1 - smoothing) + smoothing / 2
    np.testing.assert_allclose(NUMPY(loss(SOFT, LOGITS if from_logits else p)), binary_crossentropy(y, p), rtol=1e-4)
    one = SoftLabelCrossentropy(multi_label=True, reduction=None)
    column = NUMPY(one(SOFT[:, 0], p[:, :1]))
    np.testing.assert_allclose(column, binary_crossentropy(SOFT[:, :1], p[:, :1]), rtol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_divergence_is_zero_at_the_labels(multi_label):
    plain = SoftLabelCrossentropy(multi_label=multi_label, reduction=None)
    loss = SoftLabelCrossentropy(multi_label=multi_label, subtract_entropy=True, reduction=None)
    np.testing.assert_allclose(NUMPY(loss(SOFT, SOFT)), 0, atol=1e-5)
    hard = one_hot(IDS, 5)
    np.testing.assert_allclose(NUMPY(loss(hard, P)), NUMPY(plain(hard, P)), rtol=1e-5)
    assert (NUMPY(loss(SOFT, P)) < NUMPY(plain(SOFT, P)) - 1e-3).any()


@pytest.mark.parametrize("multi_label", [False, True])
def test_extreme_predictions(multi_label):
    """0 * log 0 = 0, and the loss and its gradients stay finite."""
    y = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], "float32")
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "float32")
    logits = np.array([[1e4, -1e4, -1e4], [-1e4, 1e4, 0.0]], "float32")
    for from_logits, values in ((False, probabilities), (True, logits)):
        loss = SoftLabelCrossentropy(from_logits=from_logits, multi_label=multi_label, subtract_entropy=True)
        assert np.isfinite(gradient(loss, y, values)).all()
        assert np.isfinite(float(loss(y, values)))
    infinite = np.array([[0.0, -np.inf, -np.inf]], "float32")
    if not multi_label:
        assert float(SoftLabelCrossentropy(from_logits=True)(y[:1], infinite)) == 0


def gradient(loss, y, values):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.Variable(values)
        with tf.GradientTape() as tape:
            value = loss(y, x)
        return tape.gradient(value, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda v: loss(y, v))(values))
    import torch

    x = torch.tensor(values, requires_grad=True)
    loss(y, x).backward()
    return x.grad.numpy()


@pytest.mark.parametrize("subtract_entropy", [False, True])
def test_gradient_is_prediction_minus_label(subtract_entropy):
    loss = SoftLabelCrossentropy(from_logits=True, reduction="sum", subtract_entropy=subtract_entropy)
    np.testing.assert_allclose(gradient(loss, SOFT.astype("float32"), LOGITS), P - SOFT, atol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("subtract_entropy", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_pairs_are_soft_labels(multi_label, subtract_entropy, smoothing, from_logits):
    """Values and gradients; class ids take the same way as pairs."""
    assert (PAIRS[:, 0] == PAIRS[:, 1]).any()
    assert {0, 1} < set(PAIRS[:, 2].tolist())
    loss = SoftLabelCrossentropy(from_logits, smoothing, multi_label, subtract_entropy, reduction=None)
    total = SoftLabelCrossentropy(from_logits, smoothing, multi_label, subtract_entropy, reduction="sum")
    values = LOGITS if from_logits else P.astype("float32")
    for sparse, soft in ((PAIRS, dense(PAIRS, 5)), (IDS, one_hot(IDS, 5))):
        np.testing.assert_allclose(NUMPY(loss(sparse, values)), NUMPY(loss(soft, values)), rtol=1e-5, atol=2e-6)
        ours, theirs = (gradient(total, labels.astype("float32"), values) for labels in (sparse, soft))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_pairs_against_the_oracle():
    loss = SoftLabelCrossentropy(reduction=None)
    expected = crossentropy(dense(PAIRS, 5), P)
    np.testing.assert_allclose(NUMPY(loss(PAIRS, P)), expected, rtol=1e-5, atol=1e-6)
    sequences = NUMPY(loss(PAIRS.reshape(10, 4, 3), P.reshape(10, 4, 5)))
    np.testing.assert_allclose(sequences.ravel(), expected, rtol=1e-5, atol=1e-6)
    weighted = SoftLabelCrossentropy()(PAIRS, P, sample_weight=WEIGHTS)
    np.testing.assert_allclose(float(weighted), (expected * WEIGHTS).mean(), rtol=1e-5)
    # Three columns of three classes are soft labels.
    three = SOFT[:, :3] / SOFT[:, :3].sum(axis=1, keepdims=True)
    predicted = P[:, :3] / P[:, :3].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(NUMPY(loss(three, predicted)), crossentropy(three, predicted), rtol=1e-4)
    with pytest.raises(ValueError, match="pairs"):
        loss(PAIRS, P[:, :2])


@given(st.data())
@settings(deadline=None, max_examples=25, derandomize=True)
def test_any_pairs_are_soft_labels(data):
    # Few shapes, since JAX compiles anew for each.
    classes = data.draw(st.sampled_from([4, 50]))
    ids = st.integers(0, classes - 1)
    rows = st.tuples(ids, ids, st.floats(0, 1, width=32, allow_subnormal=False))
    pairs = np.array(data.draw(st.lists(rows, min_size=3, max_size=3)), "float32")
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 30, (3, classes)).astype("float32")
    arguments = [data.draw(st.sampled_from(options)) for options in ([0.0, 0.1], [False, True], [False, True])]
    loss = SoftLabelCrossentropy(True, *arguments, reduction=None)
    soft = dense(pairs, classes).astype("float32")
    np.testing.assert_allclose(NUMPY(loss(pairs, logits)), NUMPY(loss(soft, logits)), rtol=1e-4, atol=1e-4)


def test_large_logits_of_pairs_and_ids():
    """What is masked with -inf has no gradient; large logits lose nothing to rounding."""
    logits = np.array([[1e4, 1e4 + 1, -np.inf, -1e4], [0, -np.inf, 3, 1]], "float32")
    pairs = np.array([[0, 1, 0.25], [2, 2, 0.5]], "float32")
    loss = SoftLabelCrossentropy(from_logits=True, reduction="sum")
    expected = np.log1p(np.e) - 0.75 + np.log(np.exp([0, 3, 1]).sum()) - 3
    np.testing.assert_allclose(float(loss(pairs, logits)), expected, rtol=1e-5)
    difference = gradient(loss, pairs, logits)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(difference, p / p.sum(axis=1, keepdims=True) - dense(pairs, 4), atol=1e-5)


def test_float32_under_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        loss = SoftLabelCrossentropy(from_logits=True)
        half = ops.cast(LOGITS, "float16")
        value = loss(SOFT, half)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        expected = crossentropy(SOFT, softmax(LOGITS.astype("float16").astype("float64"))).mean()
        np.testing.assert_allclose(float(value), expected, rtol=1e-5)
        assert keras.backend.standardize_dtype(loss.call(SOFT, half).dtype) == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_sequences():
    y, p = IDS.reshape(10, 4), P.reshape(10, 4, 5)
    expected = crossentropy(one_hot(IDS, 5), P)
    for labels in (y, y[..., None], one_hot(IDS, 5).reshape(10, 4, 5)):
        loss = SoftLabelCrossentropy(reduction=None)
        np.testing.assert_allclose(NUMPY(loss(labels, p)).ravel(), expected, rtol=1e-4)


def test_wrong_labels_are_not_counted_as_something():
    loss = SoftLabelCrossentropy(reduction=None)
    for bad in (5, -1, 0.5):
        assert np.isnan(NUMPY(loss(np.array([bad, 0]), P[:2]))).tolist() == [True, False]
        for first, second in ((bad, 0), (0, bad), (bad, bad)):
            pairs = np.array([[first, second, 0.5], [0, 1, 0.5]])
            assert np.isnan(NUMPY(loss(pairs, P[:2]))).tolist() == [True, False]
            accuracy = SoftLabelAccuracy()
            accuracy.update_state(pairs, P[:2])
            assert np.isnan(float(accuracy.result()))
    for labels in (SOFT[:, :4], SOFT[:3], IDS[:3]):
        with pytest.raises(ValueError, match="y_true"):
            loss(labels, P)
    with pytest.raises(ValueError, match="multi_label=True"):
        loss(IDS[:, None], P[:, :1])
    for smoothing in (-0.1, 1.1):
        with pytest.raises(ValueError, match="label_smoothing"):
            SoftLabelCrossentropy(label_smoothing=smoothing)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_accuracy_is_the_label_mass_at_the_prediction(weights):
    metric = SoftLabelAccuracy()
    hard = one_hot(IDS, 5)
    for labels, mass in ((SOFT, SOFT), (IDS, hard), (IDS[:, None], hard), (PAIRS, dense(PAIRS, 5))):
        metric.reset_state()
        metric.update_state(labels, P, sample_weight=weights)
        expected = np.average(mass[np.arange(40), P.argmax(1)], weights=weights)
        np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-5)
    binary = SoftLabelAccuracy()
    binary.update_state(SOFT[:, 0], P[:, :1])
    np.testing.assert_allclose(
        float(binary.result()), np.where(P[:, 0] > 0.5, SOFT[:, 0], 1 - SOFT[:, 0]).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_calibration_error(weights, bins, from_logits):
    for labels, soft in ((IDS, one_hot(IDS, 5)), (SOFT, SOFT), (PAIRS, dense(PAIRS, 5))):
        metric = ExpectedCalibrationError(num_bins=bins, from_logits=from_logits)
        for part in (slice(0, 11), slice(11, 40)):
            values = LOGITS[part] if from_logits else P[part]
            metric.update_state(labels[part], values, None if weights is None else weights[part])
        np.testing.assert_allclose(float(metric.result()), calibration_error(soft, P, bins, weights), rtol=1e-4)
        metric.reset_state()
        assert float(metric.result()) == 0


def test_calibration_of_binary_and_sequence_predictions():
    p = P[:, :1]
    both = np.concatenate([1 - p, p], axis=1)
    metric = ExpectedCalibrationError()
    metric.update_state((IDS == 0)[:, None], p)
    np.testing.assert_allclose(
        float(metric.result()), calibration_error(one_hot((IDS == 0).astype(int), 2), both, 15), rtol=1e-4
    )
    logits = ExpectedCalibrationError(from_logits=True)
    logits.update_state((IDS == 0)[:, None], np.log(p / (1 - p)))
    np.testing.assert_allclose(float(logits.result()), float(metric.result()), rtol=1e-4)
    steps = ExpectedCalibrationError()
    steps.update_state(IDS.reshape(10, 4), P.reshape(10, 4, 5), WEIGHTS[:10])
    expected = calibration_error(one_hot(IDS, 5), P, 15, np.repeat(WEIGHTS[:10], 4))
    np.testing.assert_allclose(float(steps.result()), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="num_bins"):
        ExpectedCalibrationError(num_bins=0)


def test_weighted_metrics_in_fit():
    """With batches whose size is not known when the step is compiled."""
    generator = np.random.default_rng(0)
    x, w = generator.normal(size=(10, 4)).astype("float32"), generator.uniform(0, 2, 10).astype("float32")
    model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    metrics = [SoftLabelAccuracy(), ExpectedCalibrationError()]
    model.compile("sgd", SoftLabelCrossentropy(), weighted_metrics=metrics)
    model.fit(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0)
    ours = model.evaluate(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
    hard, p = one_hot(IDS[:10] % 3, 3), model.predict(x, verbose=0)
    np.testing.assert_allclose(ours["expected_calibration_error"], calibration_error(hard, p, 15, w), rtol=1e-4)


def test_one_loss_and_metric_for_soft_training_and_integer_validation():
    """The peers' "accuracy" is resolved from the soft labels and reports 0.0 on the integer ones."""
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", SoftLabelCrossentropy(), metrics=[SoftLabelAccuracy(), ExpectedCalibrationError()])
    history = model.fit(x, one_hot(y, 2), validation_data=(x, y), epochs=2, verbose=0).history
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(history["val_soft_label_accuracy"][-1], (predicted.argmax(1) == y).mean(), rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"][-1], crossentropy(one_hot(y, 2), predicted).mean(), rtol=1e-4)


def test_one_loss_and_metric_for_pairs_and_integer_validation():
    """Training on pairs is training on dense labels; the validation data keep their ids."""
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + 2 * (x[:, 1] > 0)
    histories = []
    for labels in ("dense", "pair"):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(4, activation="softmax")])
        model.compile("adam", SoftLabelCrossentropy(), metrics=[SoftLabelAccuracy(), ExpectedCalibrationError()])
        mixed = kmix.MixUp(1.0, num_classes=4, labels=labels, seed=1).at_step(0, (x, y, np.ones(60, "float32")))
        assert mixed[1].shape == (60, 4 if labels == "dense" else 3)
        data = {"x": mixed[0], "y": mixed[1], "sample_weight": mixed[2], "validation_data": (x, y)}
        histories.append(model.fit(**data, epochs=2, batch_size=16, shuffle=False, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, err_msg=name)
