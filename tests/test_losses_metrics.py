"""The loss and the metrics, against NumPy and against Keras."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from oracle import binary_crossentropy, calibration_error, crossentropy, dense, one_hot, softmax

import kmix
from kmix.label_forms import LabelForm, resolve
from kmix.losses import SoftLabelCrossentropy
from kmix.metrics import ExpectedCalibrationError, SoftLabelAccuracy, SoftLabelMeanIoU


def arrays():
    """Logits, class ids, soft labels, pairs and weights of 40 samples of 5 classes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 5)).astype("float32")
    ids, soft = rng.integers(0, 5, 40), rng.dirichlet(np.ones(5) / 2, 40)
    # Include pairs of one class, and shares of 0 and 1.
    pairs = np.stack([ids, np.roll(ids, 1), np.clip(rng.uniform(-0.2, 1.2, 40), 0, 1)], axis=1).astype("float32")
    return logits, ids, soft, pairs, rng.uniform(0, 2, 40)


LOGITS, IDS, SOFT, PAIRS, WEIGHTS = arrays()
P = softmax(LOGITS.astype("float64"))
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


@pytest.mark.in_turn
@pytest.mark.fast("True-True-*")
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("subtract_entropy", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_pairs_are_soft_labels(multi_label, subtract_entropy, smoothing, from_logits):
    """Values and gradients. Class ids use the same code as pairs."""
    assert (PAIRS[:, 0] == PAIRS[:, 1]).any()
    assert {0, 1} < set(PAIRS[:, 2].tolist())
    settings = {"multi_label": multi_label, "subtract_entropy": subtract_entropy}
    loss = SoftLabelCrossentropy(from_logits, smoothing, reduction=None, **settings)
    total = SoftLabelCrossentropy(from_logits, smoothing, reduction="sum", **settings)
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


@pytest.mark.slow
@given(st.data())
@settings(deadline=None, max_examples=25, derandomize=True)
def test_any_pairs_are_soft_labels(data):
    # Few shapes, since JAX compiles for each.
    classes = data.draw(st.sampled_from([4, 50]))
    ids = st.integers(0, classes - 1)
    rows = st.tuples(ids, ids, st.floats(0, 1, width=32, allow_subnormal=False))
    pairs = np.array(data.draw(st.lists(rows, min_size=3, max_size=3)), "float32")
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 30, (3, classes)).astype("float32")
    smoothing, *flags = [data.draw(st.sampled_from(options)) for options in ([0.0, 0.1], [False, True], [False, True])]
    settings = dict(zip(["multi_label", "subtract_entropy"], flags, strict=True))
    loss = SoftLabelCrossentropy(True, smoothing, reduction=None, **settings)
    soft = dense(pairs, classes).astype("float32")
    np.testing.assert_allclose(NUMPY(loss(pairs, logits)), NUMPY(loss(soft, logits)), rtol=1e-4, atol=1e-4)


def test_large_logits_of_pairs_and_ids():
    """Logits masked with -inf have no gradient, and large logits keep their precision."""
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


@pytest.mark.in_turn
@pytest.mark.fast("None-1-False", "None-15-True", "weights1-7-True", "weights1-15-False")
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


@pytest.mark.slow
def test_weighted_metrics_in_fit():
    """With batches of unknown size when the step is compiled."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10, 4)).astype("float32")
    w = rng.uniform(0, 2, 10).astype("float32")
    model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    metrics = [SoftLabelAccuracy(), ExpectedCalibrationError()]
    model.compile("sgd", SoftLabelCrossentropy(), weighted_metrics=metrics)
    model.fit(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0)
    ours = model.evaluate(x, IDS[:10] % 3, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
    hard, p = one_hot(IDS[:10] % 3, 3), model.predict(x, verbose=0)
    np.testing.assert_allclose(ours["expected_calibration_error"], calibration_error(hard, p, 15, w), rtol=1e-4)


def test_one_loss_and_metric_for_soft_training_and_integer_validation():
    """Keras resolves "accuracy" from soft labels, and it then reports 0.0 on integer labels."""
    x = np.random.default_rng(2).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", SoftLabelCrossentropy(), metrics=[SoftLabelAccuracy(), ExpectedCalibrationError()])
    history = model.fit(x, one_hot(y, 2), validation_data=(x, y), epochs=2, verbose=0).history
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(history["val_soft_label_accuracy"][-1], (predicted.argmax(1) == y).mean(), rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"][-1], crossentropy(one_hot(y, 2), predicted).mean(), rtol=1e-4)


@pytest.mark.slow
def test_one_loss_and_metric_for_pairs_and_integer_validation():
    """Training on pairs equals training on dense labels; the validation data keep their ids."""
    x = np.random.default_rng(2).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + 2 * (x[:, 1] > 0)
    histories = []
    for labels in ("dense", "pair"):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(4, activation="softmax")])
        model.compile("adam", SoftLabelCrossentropy(), metrics=[SoftLabelAccuracy(), ExpectedCalibrationError()])
        target = (kmix.targets.Labels if labels == "dense" else kmix.targets.LabelPairs)(4)
        mixed = kmix.MixUp(1.0, target=target, seed=1).at_step(0, (x, y, np.ones(60, "float32")))
        assert mixed[1].shape == (60, 4 if labels == "dense" else 3)
        data = {"x": mixed[0], "y": mixed[1], "sample_weight": mixed[2], "validation_data": (x, y)}
        histories.append(model.fit(**data, epochs=2, batch_size=16, shuffle=False, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, err_msg=name)


REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", None]
LABEL_FORMS = {"ids": IDS, "column": IDS[:, None], "pairs": PAIRS, "soft": SOFT}


def class_weights_for(seed=3):
    """Weights of the classes. A third of them are 0, with one row of zeros."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0, 2, (40, 5)) * (rng.random((40, 5)) > 0.3)
    weights[7] = 0
    return weights


def reduced(losses, weights, reduction):
    """Keras' reduction of the weighted `losses` `(B,)`, with the mean weights of the samples."""
    if reduction is None:
        return losses
    divisor = {"sum": 1.0, "mean_with_sample_weight": weights.sum()}.get(reduction, float(len(losses)))
    return losses.sum() / divisor


def binary_terms(y, p):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


@pytest.mark.parametrize("form", LABEL_FORMS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_of_the_classes(reduction, form):
    weights, y = class_weights_for(), LABEL_FORMS[form]
    dense_y = {"pairs": dense(PAIRS, 5), "soft": SOFT}.get(form, one_hot(IDS, 5))
    expected = reduced((weights * binary_terms(dense_y, P)).mean(axis=1), weights.mean(axis=1), reduction)
    for from_logits, values in ((False, P), (True, np.log(P / (1 - P)))):
        loss = SoftLabelCrossentropy(from_logits, multi_label=True, reduction=reduction)
        np.testing.assert_allclose(NUMPY(loss(y, values, sample_weight=weights)), expected, rtol=1e-4, atol=1e-6)
    smooth = SoftLabelCrossentropy(label_smoothing=0.2, multi_label=True, subtract_entropy=True, reduction=reduction)
    z = dense_y * 0.8 + 0.1
    expected = (weights * (binary_terms(z, P) - binary_terms(z, z))).mean(axis=1)
    expected = reduced(expected, weights.mean(axis=1), reduction)
    np.testing.assert_allclose(NUMPY(smooth(y, P, sample_weight=weights)), expected, rtol=1e-4, atol=1e-6)


def masked(p, mask):
    """Predictions with a mask of Keras, as a layer hands them on."""

    class Mask(keras.layers.Layer):
        def call(self, x):
            return 1.0 * x

        def compute_mask(self, x, previous_mask=None):
            return ops.convert_to_tensor(mask)

    return Mask()(ops.convert_to_tensor(p.astype("float32")))


@pytest.mark.in_turn
@pytest.mark.fast("mean_with*masked")
@pytest.mark.parametrize("mask", [None, IDS != 2], ids=["unmasked", "masked"])
@pytest.mark.parametrize("form", LABEL_FORMS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equal_weights_of_the_classes_are_weights_of_the_samples(reduction, form, mask):
    """Also with a Keras mask."""
    loss = SoftLabelCrossentropy(multi_label=True, reduction=reduction)
    p, y, repeated = P if mask is None else masked(P, mask), LABEL_FORMS[form], np.repeat(WEIGHTS[:, None], 5, axis=1)
    values = [NUMPY(loss(y, p, sample_weight=weights)) for weights in (WEIGHTS, WEIGHTS[:, None], repeated)]
    assert values[0].shape == values[1].shape == values[2].shape
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-5)
    if mask is not None:
        assert not np.allclose(NUMPY(loss(y, P, sample_weight=repeated)), values[2])
        # Keras would multiply weights by the mask in place on PyTorch.
        weights = WEIGHTS.astype("float32")
        loss(y, p, sample_weight=weights)
        np.testing.assert_array_equal(weights, WEIGHTS.astype("float32"))


def test_weights_of_the_classes_in_sequences():
    weights = class_weights_for()
    loss = SoftLabelCrossentropy(multi_label=True)
    expected = (weights * binary_terms(one_hot(IDS, 5), P)).mean()
    value = loss(IDS.reshape(10, 4), P.reshape(10, 4, 5), sample_weight=weights.reshape(10, 4, 5))
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_labels_of_weight_zero_are_not_looked_at(reduction):
    """Neither for the value nor for the gradient."""
    weights = class_weights_for().astype("float32")
    known = np.where(weights == 0, 0.5, SOFT).astype("float32")
    unknown = np.where(weights == 0, np.nan, SOFT).astype("float32")
    inner = SoftLabelCrossentropy(from_logits=True, multi_label=True, reduction=reduction)

    def loss(y, values):
        return inner(y, values, sample_weight=weights)

    np.testing.assert_allclose(float(loss(unknown, LOGITS)), float(loss(known, LOGITS)), rtol=1e-6)
    found = gradient(loss, unknown, LOGITS)
    p = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    divisor = weights.mean(axis=1).sum() if reduction == "mean_with_sample_weight" else 1.0
    np.testing.assert_allclose(found, weights * (p - known) / 5 / divisor, atol=1e-6)


def test_a_batch_of_unknown_labels_has_no_loss():
    for reduction in REDUCTIONS:
        loss = SoftLabelCrossentropy(multi_label=True, reduction=reduction)
        assert (NUMPY(loss(SOFT * np.nan, P, sample_weight=np.zeros((40, 5)))) == 0).all()


def test_weights_of_the_classes_elsewhere_raise():
    weights = np.ones((40, 5))
    with pytest.raises(ValueError, match=r"multi_label=True"):
        SoftLabelCrossentropy()(SOFT, P, sample_weight=weights)
    for metric in (SoftLabelAccuracy(), ExpectedCalibrationError()):
        with pytest.raises(ValueError, match=r"sample_weight of shape \(40, 5\)"):
            metric.update_state(SOFT, P, sample_weight=weights)
    with pytest.raises(ValueError, match=r"\(40, 4\)"):
        SoftLabelCrossentropy(multi_label=True)(SOFT, P, sample_weight=weights[:, :4])


def test_a_subclass_is_honoured_or_refused_under_weights_of_the_classes():
    class Double(SoftLabelCrossentropy):
        def call(self, y_true, y_pred, class_weights=None):
            return 2 * super().call(y_true, y_pred, class_weights)

    class Unaware(SoftLabelCrossentropy):
        def call(self, y_true, y_pred):
            return 2 * super().call(y_true, y_pred)

    weights, plain = class_weights_for(), SoftLabelCrossentropy(multi_label=True)
    expected = 2 * float(plain(SOFT, P, sample_weight=weights))
    np.testing.assert_allclose(float(Double(multi_label=True)(SOFT, P, sample_weight=weights)), expected, rtol=1e-6)
    with pytest.raises(TypeError):
        Unaware(multi_label=True)(SOFT, P, sample_weight=weights)


def test_weights_of_the_classes_in_fit_and_evaluate():
    """A label of weight 0 teaches nothing."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.integers(0, 2, (8, 4)).astype("float32")
    weights = np.ones((8, 4), "float32")
    weights[:, 1] = 0
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(1.0), SoftLabelCrossentropy(multi_label=True))
    before = [NUMPY(weight).copy() for weight in model.weights]
    expected = (weights * binary_terms(y, model.predict(x, verbose=0).astype("float64"))).mean()
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=weights, verbose=0), expected, rtol=1e-4)
    loss = model.fit(x, y, sample_weight=weights, verbose=0).history["loss"][0]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    changed = [
        np.abs(NUMPY(weight) - old).reshape(-1, 4).max(axis=0)
        for weight, old in zip(model.weights, before, strict=True)
    ]
    assert all((change[[0, 2, 3]] > 0).all() and change[1] == 0 for change in changed)


# In TensorFlow, the order of label forms decides how `fit` is traced.
FORMS = {
    "ids": IDS.astype("float32"),
    "column": IDS[:, None].astype("float32"),
    "soft": SOFT.astype("float32"),
    "pairs": PAIRS,
}
EXPECTED = {
    name: (crossentropy(y, P).mean(), y[np.arange(40), P.argmax(1)].mean())
    for name, y in {
        "ids": one_hot(IDS, 5),
        "column": one_hot(IDS, 5),
        "soft": SOFT,
        "pairs": dense(PAIRS, 5),
    }.items()
}


def fixed_model(**kwargs):
    """A model that returns its inputs and learns nothing, with the loss and the accuracy of kmix."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, "softmax", kernel_initializer="identity")])
    model.compile(
        keras.optimizers.SGD(0.0),
        SoftLabelCrossentropy(),
        metrics=[SoftLabelAccuracy()],
        weighted_metrics=[ExpectedCalibrationError()],
        **kwargs,
    )
    return model


def check_form(model, method, name, y=None):
    """Send labels through `fit` or `evaluate` and compare with NumPy."""
    y = FORMS[name] if y is None else y
    if method == "fit":
        history = model.fit(LOGITS, y, batch_size=20, verbose=0).history
        logs = {key: values[0] for key, values in history.items()}
    else:
        logs = model.evaluate(LOGITS, y, batch_size=20, verbose=0, return_dict=True)
    loss, accuracy = EXPECTED[name]
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(logs["soft_label_accuracy"], accuracy, rtol=1e-4, err_msg=name)
    calibration = calibration_error({"soft": SOFT, "pairs": dense(PAIRS, 5)}.get(name, one_hot(IDS, 5)), P, 15)
    np.testing.assert_allclose(logs["expected_calibration_error"], calibration, rtol=1e-4, err_msg=name)


# Every first and second form. The later forms meet the shapes that these two left unknown.
ORDERS = [(*pair, *(name for name in FORMS if name not in pair)) for pair in itertools.permutations(FORMS, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_every_order_of_label_forms(method):
    """tensorflow #47394: TensorFlow traces again, with an unknown last axis or an unknown rank."""
    for order in ORDERS if keras.backend.backend() == "tensorflow" else ORDERS[:2]:
        model = fixed_model()
        for name in order:
            check_form(model, method, name)


in_graphs = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has unknown shapes")


@pytest.mark.slow
@in_graphs
@pytest.mark.parametrize("order", ORDERS[::3])
def test_orders_of_label_forms_under_xla(order):
    model = fixed_model(jit_compile=True)
    for name in order:
        check_form(model, "fit", name)


@pytest.mark.slow
@pytest.mark.parametrize("order", [["column", "soft", "ids"], ["soft", "column", "ids"], ["ids", "soft", "column"]])
def test_orders_of_integer_class_ids(order):
    labels = {"column": IDS[:, None], "ids": IDS, "soft": FORMS["soft"]}
    model = fixed_model()
    for _ in range(2):
        for name in order:
            check_form(model, "fit", name, labels[name])
            check_form(model, "evaluate", name, labels[name])


@pytest.mark.fast("pairs-evaluate")
@in_graphs
@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize("name", FORMS)
def test_labels_of_unknown_rank(name, method):
    """As a `tf.py_function` in the data set returns them."""
    import tensorflow as tf

    ds = tf.data.Dataset.from_tensor_slices((LOGITS, FORMS[name])).batch(20)
    ds = ds.map(lambda x, y: (x, tf.py_function(lambda y: y, [y], "float32")))
    assert ds.element_spec[1].shape.rank is None
    model = fixed_model()
    logs = (
        {key: values[0] for key, values in model.fit(ds, verbose=0).history.items()}
        if method == "fit"
        else model.evaluate(ds, verbose=0, return_dict=True)
    )
    np.testing.assert_allclose([logs["loss"], logs["soft_label_accuracy"]], EXPECTED[name], rtol=1e-4)


@pytest.mark.fast("False-shape1")
@in_graphs
@pytest.mark.parametrize("shape", [None, (None, None)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_of_no_known_form(jit_compile, shape):
    """An error; XLA drops it, and the loss is NaN or the shapes do not fit."""
    import tensorflow as tf

    signature = [tf.TensorSpec(shape), tf.TensorSpec((None, 5))]
    loss = SoftLabelCrossentropy(reduction=None)
    function = tf.function(lambda y, p: loss(y, p), input_signature=signature, jit_compile=jit_compile)
    p = P[:6].astype("float32")
    for bad in (5, -1, 0.5):
        y = np.array([bad, 0, 1, 2, 3, 4], "float32")[:, None]
        assert np.isnan(function(y, p).numpy()).tolist() == [True] + [False] * 5
    for size in ((6, 4), (6, 2), (6, 6), (5, 6), (7, 1), (1, 1), (1, 5), *([] if shape else [(5,), (1,), (6, 5, 1)])):
        y = np.zeros(size, "float32")
        if jit_compile and size in ((6, 4), (6, 2), (6, 6)):
            assert np.isnan(function(y, p).numpy()).all()
        elif not jit_compile:
            with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
                function(y, p)


@pytest.mark.slow
@in_graphs
def test_resolved_labels_have_a_static_shape():
    import tensorflow as tf

    shapes = []

    def soft(y, rank):
        resolved = resolve(y, 5, rank)
        shapes.append(resolved.shape.as_list())
        assert resolved.dtype == "float32"
        return resolved

    sequences = IDS.reshape(4, 10, 1)
    for rank, spec, ids in ((2, None, IDS), (2, (None, None), IDS[:, None]), (3, (4, None, None), sequences)):
        function = tf.function(lambda y, rank=rank: soft(y, rank), input_signature=[tf.TensorSpec(spec, "int64")])
        np.testing.assert_array_equal(function(ids).numpy().reshape(40, 5), one_hot(IDS, 5))
    assert shapes == [[None, 5], [None, 5], [4, None, 5]]
    # Three columns of three classes are soft labels; one column is the probability of the positive class.
    for classes, y in ((3, SOFT[:, :3]), (1, SOFT[:, :1]), (1, SOFT[:, 0])):
        function = tf.function(
            lambda y, classes=classes: resolve(y, classes, 2),
            input_signature=[tf.TensorSpec(None, "float32")],
        )
        np.testing.assert_array_equal(function(y.astype("float32")).numpy(), y.reshape(40, -1).astype("float32"))
    with pytest.raises(ValueError, match="set_shape"):
        tf.function(lambda y: resolve(y, None, 2), input_signature=[tf.TensorSpec(None)])(IDS)


def test_labels_of_a_known_form_are_not_touched():
    for y in (IDS, SOFT, PAIRS):
        assert resolve(y, 5, 2) is y


def pair_of_losses(loss, lam, y, partner, p):
    return lam * NUMPY(loss(y, p)) + (1 - lam) * NUMPY(loss(partner, p))


LINEAR = [
    kmix.losses.SoftLabelCrossentropy(),
    kmix.losses.SoftLabelCrossentropy(multi_label=True),
    keras.losses.CategoricalCrossentropy(),
    keras.losses.BinaryCrossentropy(),
    keras.losses.CategoricalFocalCrossentropy(),
    keras.losses.Poisson(),
]
LINEAR_BUT_FOR_A_CONSTANT = [
    kmix.losses.SoftLabelCrossentropy(subtract_entropy=True),
    keras.losses.KLDivergence(),
    keras.losses.MeanSquaredError(),
]
NOT_LINEAR = [
    keras.losses.BinaryFocalCrossentropy(),
    keras.losses.CategoricalHinge(),
    keras.losses.SquaredHinge(),
    keras.losses.Hinge(),
    keras.losses.MeanAbsoluteError(),
    keras.losses.Huber(0.1),
    keras.losses.LogCosh(),
    keras.losses.CosineSimilarity(),
]


@pytest.mark.parametrize("loss", LINEAR + LINEAR_BUT_FOR_A_CONSTANT + NOT_LINEAR, ids=lambda loss: loss.name)
def test_which_losses_are_linear_in_the_labels(loss):
    """What the docstring of `SoftLabelCrossentropy` says: is the loss of the mix the mix of the losses?"""
    y, partner = one_hot([0, 1], 3).astype("float32"), one_hot([2, 0], 3).astype("float32")
    lam, p, q = 0.3, *np.random.default_rng(5).dirichlet(np.ones(3), (2, 2)).astype("float32")
    mixed = lam * y + (1 - lam) * partner
    gaps = [float(loss(mixed, x) - pair_of_losses(loss, lam, y, partner, x)) for x in (p, q)]
    if loss in NOT_LINEAR:
        assert abs(gaps[0] - gaps[1]) > 1e-3
    elif loss in LINEAR:
        np.testing.assert_allclose(gaps, 0, atol=1e-5)
    else:
        assert abs(gaps[0]) > 1e-3
        np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: SoftLabelCrossentropy(False, 0.1, True), TypeError, "positional"),
        (lambda: SoftLabelAccuracy("accuracy", 255), TypeError, "positional"),
        (lambda: ExpectedCalibrationError(15, True), TypeError, "positional"),
        (lambda: SoftLabelMeanIoU(3, 255), TypeError, "positional"),
        (lambda: SoftLabelCrossentropy("abc"), TypeError, "from_logits"),
        (lambda: SoftLabelCrossentropy(label_smoothing="abc"), TypeError, "label_smoothing"),
        (lambda: SoftLabelCrossentropy(label_smoothing=2), ValueError, "label_smoothing"),
        (lambda: SoftLabelCrossentropy(multi_label=-1), TypeError, "multi_label"),
        (lambda: SoftLabelCrossentropy(subtract_entropy=None), TypeError, "subtract_entropy"),
        (lambda: SoftLabelCrossentropy(ignore_class=0.5), TypeError, "ignore_class"),
        (lambda: SoftLabelCrossentropy(reduction="abc"), ValueError, "reduction"),
        (lambda: SoftLabelAccuracy(ignore_class="abc"), TypeError, "ignore_class"),
        (lambda: ExpectedCalibrationError(0), ValueError, "num_bins"),
        (lambda: ExpectedCalibrationError(None), TypeError, "num_bins"),
        (lambda: ExpectedCalibrationError(from_logits="abc"), TypeError, "from_logits"),
        (lambda: SoftLabelMeanIoU(1), ValueError, "num_classes"),
        (lambda: SoftLabelMeanIoU("abc"), TypeError, "num_classes"),
        (lambda: SoftLabelMeanIoU(3, ignore_class=0.5), TypeError, "ignore_class"),
    ],
)
def test_arguments_are_checked(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_weights_of_leading_axes_give_the_weighted_mean():
    p, y, weights = P.reshape(10, 4, 5), IDS.reshape(10, 4), WEIGHTS[:10]
    losses = crossentropy(one_hot(IDS, 5), P).reshape(10, 4)
    for ignored in (None, 255):
        loss = SoftLabelCrossentropy(reduction="mean_with_sample_weight", ignore_class=ignored)
        expected = np.average(losses, weights=np.repeat(weights[:, None], 4, axis=1))
        for w in (weights, weights[:, None], np.repeat(weights, 4).reshape(10, 4, 1)):
            np.testing.assert_allclose(float(loss(y, p, w)), expected, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras divides by the replicas of tf.distribute")
@pytest.mark.parametrize("settings", [{}, {"ignore_class": 2}, {"multi_label": True}])
def test_losses_of_replicas_add_up(settings, monkeypatch):
    import tensorflow as tf

    loss, weights = SoftLabelCrossentropy(**settings), np.ones((40, 5)) if "multi_label" in settings else None
    alone = float(loss(IDS, P, weights))
    replicas = type("Strategy", (), {"num_replicas_in_sync": 2})
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: replicas)
    np.testing.assert_allclose(float(loss(IDS, P, weights)), alone / 2, rtol=1e-6)


def mean_iou(y, predicted, weights, classes):
    """Everingham et al. 2015, section 4.1.3: true positives by all positives, of labels or predictions."""
    found = []
    for one in range(classes):
        union = weights[(y == one) | (predicted == one)].sum()
        if union > 0:
            found.append(weights[(y == one) & (predicted == one)].sum() / union)
    return np.mean(found)


# Tokens, 0 is padding, and logits of 5 classes for each.
TOKENS = np.where(np.arange(7) < np.array([7, 3, 1, 5, 6, 2])[:, None], np.arange(42).reshape(6, 7) % 8 + 1, 0)
TABLE = np.random.default_rng(3).normal(0, 2, (9, 5)).astype("float32")
TOKEN_IDS = np.random.default_rng(4).integers(0, 5, TOKENS.shape)


def token_model(form):
    """Padded tokens to probabilities of their classes."""
    ignore_class = 255 if form == "ignored" else None
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            keras.layers.Embedding(9, 5, mask_zero=True, weights=[TABLE]),
            keras.layers.Dense(5, "softmax", kernel_initializer="identity"),
        ]
    )

    def metrics(prefix=""):
        return [
            SoftLabelAccuracy(f"{prefix}accuracy", ignore_class=ignore_class),
            SoftLabelMeanIoU(5, ignore_class=ignore_class, name=f"{prefix}iou"),
            *([ExpectedCalibrationError(name=f"{prefix}ece")] if ignore_class is None else []),
        ]

    keras_own = [keras.metrics.SparseCategoricalAccuracy(name="keras")] if form == "ids" else []

    model.compile(
        keras.optimizers.SGD(0.0),
        SoftLabelCrossentropy(ignore_class=ignore_class),
        metrics=metrics() + keras_own,
        weighted_metrics=metrics("weighted_"),
    )
    return model


@pytest.mark.in_turn
@pytest.mark.fast("ignored-evaluate")
@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize("form", ["ids", "ignored", "soft"])
def test_padding_does_not_count(form, method):
    """Except in the metrics of a training step on JAX, where Keras' own count it as well."""
    ids = np.where(TOKENS % 4 == 1, 255, TOKEN_IDS) if form == "ignored" else TOKEN_IDS
    soft = (ids[..., None] == np.arange(5)).astype("float64")
    if form == "soft":
        soft = 0.7 * soft + 0.3 * np.roll(soft, 1, axis=0)
    p, real, weights = softmax(TABLE[TOKENS].astype("float64")), (TOKENS != 0) * 1.0, np.linspace(0.5, 2, 6)
    model, y = token_model(form), soft.astype("float32") if form == "soft" else ids
    # The gradient takes the masks of tensors away.
    counted = np.ones_like(real) if method == "fit" and keras.backend.backend() == "jax" else real
    logs = (
        {name: values[0] for name, values in model.fit(TOKENS, y, 6, 1, 0, sample_weight=weights).history.items()}
        if method == "fit"
        else model.evaluate(TOKENS, y, 6, 0, sample_weight=weights, return_dict=True)
    )
    mass, losses = soft.sum(axis=-1), crossentropy(soft, p)
    expected = {"loss": (losses * real * weights[:, None]).sum() / (mass * real).sum()}
    accuracy = np.take_along_axis(soft, p.argmax(-1)[..., None], -1)[..., 0]
    for prefix, weight in (("", counted), ("weighted_", counted * weights[:, None])):
        expected[f"{prefix}accuracy"] = (accuracy * weight).sum() / (mass * weight).sum()
        expected[f"{prefix}iou"] = mean_iou(soft.argmax(-1), p.argmax(-1), weight * mass, 5)
        if form != "ignored":
            flat = soft.reshape(-1, 5), p.reshape(-1, 5)
            expected[f"{prefix}ece"] = calibration_error(*flat, 15, weight.ravel())
    np.testing.assert_allclose([logs[name] for name in expected], list(expected.values()), rtol=1e-4)
    if form == "ids":
        np.testing.assert_allclose(logs["accuracy"], logs["keras"], rtol=1e-5)


def test_mean_iou():
    def check(y, soft, classes=5, p=P, weights=WEIGHTS):
        metric, w = SoftLabelMeanIoU(classes), np.ones(40) if weights is None else weights
        for part in (slice(0, 20), slice(20, 40)):
            metric.update_state(y[part], p[part], None if weights is None else weights[part])
        found = p.argmax(-1) if p.shape[1] > 1 else p[:, 0] > 0.5
        np.testing.assert_allclose(float(metric.result()), mean_iou(soft.argmax(-1), found, w, classes), rtol=1e-5)

    hard = one_hot(IDS, 5)
    check(IDS, hard, weights=None)
    for y, soft in ((IDS, hard), (IDS[:, None].astype("uint8"), hard), (SOFT, SOFT), (PAIRS, dense(PAIRS, 5))):
        check(y, soft)
    # A class that neither labels nor predictions have, and a single column of two classes.
    check(IDS, hard, 6, np.concatenate([P, np.zeros((40, 1))], axis=1))
    check(IDS == 0, one_hot((IDS == 0).astype(int), 2), 2, P[:, :1])
    assert float(SoftLabelMeanIoU(5).result()) == 0


def test_mean_iou_where_pixels_have_no_class():
    ids = np.where(IDS == 3, 255, IDS)
    soft = (ids[:, None] == np.arange(5)).astype("float32")
    expected = mean_iou(ids, P.argmax(-1), (ids != 255) * 1.0, 5)
    for labels, ignored in ((ids, 255), (soft, 255), (soft, None), (IDS, 3)):
        value = SoftLabelMeanIoU(5, ignore_class=ignored)(labels, P)
        np.testing.assert_allclose(float(value), expected, rtol=1e-5)
    # A mixed pixel counts for the share of the partner that has a class.
    half = 0.5 * soft + 0.5 * np.roll(soft, 1, axis=0)
    expected = mean_iou(half.argmax(-1), P.argmax(-1), half.sum(-1), 5)
    np.testing.assert_allclose(float(SoftLabelMeanIoU(5, ignore_class=255)(half, P)), expected, rtol=1e-5)
    assert np.isnan(float(SoftLabelMeanIoU(5)(ids, P)))
    with pytest.raises(ValueError, match="num_classes=4"):
        SoftLabelMeanIoU(4)(ids, P)
    with pytest.raises(ValueError, match="ignore_class"):
        SoftLabelMeanIoU(2, ignore_class=255)(ids, P[:, :1])


@pytest.mark.slow
def test_one_mean_iou_for_blended_masks_in_training_and_ids_in_validation():
    rng = np.random.default_rng(6)
    logits, masks = rng.normal(size=(6, 5, 4, 3)).astype("float32"), rng.integers(0, 3, (6, 5, 4))
    hot = np.eye(3)[masks]
    blended = 0.6 * hot + 0.4 * np.roll(hot, 1, axis=0)
    model = keras.Sequential([keras.Input((5, 4, 3)), keras.layers.Dense(3, "softmax", kernel_initializer="identity")])
    loss, metrics = SoftLabelCrossentropy(), [SoftLabelMeanIoU(3, name="iou")]
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=metrics)
    log = model.fit(logits, blended, validation_data=(logits, masks), batch_size=6, verbose=0).history
    predicted = logits.argmax(-1)
    expected = [mean_iou(y.argmax(-1), predicted, np.ones(masks.shape), 3) for y in (blended, hot)]
    np.testing.assert_allclose([log["iou"][0], log["val_iou"][0]], expected, rtol=1e-5)


READ = {"ids": (IDS, one_hot(IDS, 5)), "pairs": (PAIRS, dense(PAIRS, 5)), "soft": (SOFT, SOFT)}


@pytest.mark.parametrize(
    "convert", [np.asarray, lambda y: ops.convert_to_tensor(y, "float32")], ids=["NumPy", "tensor"]
)
@pytest.mark.parametrize("kind", READ)
def test_forms_of_labels(kind, convert):
    y, soft = READ[kind]
    form = LabelForm.read(convert(y), (None, 5))
    assert form.kind == kind
    np.testing.assert_allclose(NUMPY(form.dense()), soft, atol=1e-6)
    np.testing.assert_allclose(NUMPY(form.mass), soft.sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(NUMPY(form.largest()), soft.argmax(-1))
    classes = P.argmax(-1).astype("int32")
    share = form.share_of(classes if convert is np.asarray else ops.convert_to_tensor(classes))
    np.testing.assert_allclose(NUMPY(share), soft[np.arange(40), classes], atol=1e-6)


def test_forms_of_labels_told_by_their_values():
    for y, kind in (
        (IDS, "ids"),
        (IDS[:, None].astype("uint8"), "ids"),
        (PAIRS, "pairs"),
        (SOFT, "soft"),
        (one_hot(IDS, 5).astype("int32"), "soft"),
        ((SOFT > 0.2) * 1.0, "soft"),
        (SOFT[:, 0], "numbers"),
        (LOGITS, "numbers"),
        (np.where(SOFT > 0.5, np.nan, SOFT), "numbers"),
        (np.array([[2.0, 0.5, 0.5]]), "numbers"),
        (np.array([[2.0, -1.0, 0.5]]), "numbers"),
        (np.array([[2.0, 0.0, 1.5]]), "numbers"),
        (np.array([[1.0, 0.0, 0.5]]), "soft"),
    ):
        assert LabelForm.from_values(y).kind == kind, y
    for y, soft in ((PAIRS, dense(PAIRS, 5)), (IDS, one_hot(IDS, 5)), (SOFT, SOFT)):
        np.testing.assert_allclose(LabelForm.from_values(ops.convert_to_tensor(y)).dense(), soft, atol=1e-6)
    # A time in seconds is no whole number in float32.
    assert LabelForm.from_values(np.array([1.7e9 + 1])).shares.tolist() == [[1.7e9 + 1]]
