"""The loss and the metrics, against NumPy and against Keras."""

import keras
import numpy as np
import pytest
from keras import ops
from oracle import binary_crossentropy, calibration_error, crossentropy, one_hot, softmax

from kmix.losses import SoftLabelCrossentropy
from kmix.metrics import ExpectedCalibrationError, SoftLabelAccuracy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (40, 5)).astype("float32")
P = softmax(LOGITS.astype("float64"))
IDS = RNG.integers(0, 5, 40)
SOFT = RNG.dirichlet(np.ones(5) / 2, 40)
WEIGHTS = RNG.uniform(0, 2, 40)
NUMPY = ops.convert_to_numpy


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("labels", ["ids", "column", "one-hot", "soft"])
def test_crossentropy(labels, smoothing, from_logits):
    y = {"ids": IDS, "column": IDS[:, None], "one-hot": one_hot(IDS, 5), "soft": SOFT}[labels]
    dense = SOFT if labels == "soft" else one_hot(IDS, 5)
    dense = dense * (1 - smoothing) + smoothing / 5
    loss = SoftLabelCrossentropy(from_logits=from_logits, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(NUMPY(loss(y, LOGITS if from_logits else P)), crossentropy(dense, P), rtol=1e-4)
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
    for labels, mass in ((SOFT, SOFT), (IDS, one_hot(IDS, 5)), (IDS[:, None], one_hot(IDS, 5))):
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
    for labels, dense in ((IDS, one_hot(IDS, 5)), (SOFT, SOFT)):
        metric = ExpectedCalibrationError(num_bins=bins, from_logits=from_logits)
        for part in (slice(0, 11), slice(11, 40)):
            values = LOGITS[part] if from_logits else P[part]
            metric.update_state(labels[part], values, None if weights is None else weights[part])
        np.testing.assert_allclose(float(metric.result()), calibration_error(dense, P, bins, weights), rtol=1e-4)
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
    x = RNG.normal(size=(10, 4)).astype("float32")
    w = RNG.uniform(0, 2, 10).astype("float32")
    model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    metrics = [SoftLabelAccuracy(), ExpectedCalibrationError()]
    model.compile("sgd", SoftLabelCrossentropy(), weighted_metrics=metrics)
    model.fit(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0)
    ours = model.evaluate(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
    dense, p = one_hot(IDS[:10] % 3, 3), model.predict(x, verbose=0)
    np.testing.assert_allclose(ours["expected_calibration_error"], calibration_error(dense, p, 15, w), rtol=1e-4)


def test_one_loss_and_metric_for_soft_training_and_integer_validation():
    """The peers' "accuracy" is resolved from the soft labels and reports 0.0 on the integer ones."""
    x = RNG.normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", SoftLabelCrossentropy(), metrics=[SoftLabelAccuracy(), ExpectedCalibrationError()])
    history = model.fit(x, one_hot(y, 2), validation_data=(x, y), epochs=2, verbose=0).history
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(history["val_soft_label_accuracy"][-1], (predicted.argmax(1) == y).mean(), rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"][-1], crossentropy(one_hot(y, 2), predicted).mean(), rtol=1e-4)
