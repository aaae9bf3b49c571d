"""Metrics of a trainer that threshold their labels: in a training step they get hard ones, in `evaluate` their own."""

import keras
import numpy as np
import oracle
import pytest
from helpers import data, evaluate, ids, network, one_hot, predictions, step_of, to_numpy, trainer_of

M = keras.metrics


class OwnRecall(M.Recall):
    """A user's metric that subclasses one that thresholds."""


THRESHOLDS = [
    M.AUC,
    M.Precision,
    M.TruePositives,
    M.TrueNegatives,
    M.FalsePositives,
    M.FalseNegatives,
    lambda: M.Recall(thresholds=0.4),
    lambda: M.SensitivityAtSpecificity(0.5),
    lambda: M.SpecificityAtSensitivity(0.5),
    lambda: M.PrecisionAtRecall(0.5),
    lambda: M.RecallAtPrecision(0.5),
    lambda: M.BinaryAccuracy(name="hits"),
    lambda: M.BinaryIoU(target_class_ids=[0, 1], threshold=0.5),
    lambda: M.Precision(name="how precise"),
    lambda: OwnRecall(name="own"),
]


def binary_batch(n=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5)).astype("float32"), rng.integers(0, 2, n).astype("float32")[:, None]


def hard(y, plan):
    return (oracle.mixup(y, *plan[:2]) >= 0.5).astype("float32")


def of_keras(make, y, p, weights=None):
    metric = make()
    metric.update_state(y, p, sample_weight=weights)
    return to_numpy(metric.result())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")  # BinaryIoU of Keras on JAX
@pytest.mark.parametrize("columns", ["one column", "one-hot"])
def test_metrics_see_hard_labels_in_a_training_step(columns):
    """All of them at once. In `evaluate` they get the labels unchanged."""
    x, y = binary_batch()
    if columns == "one-hot":
        y = one_hot(ids(32))
        model, loss = network(), "categorical_crossentropy"
    else:
        model, loss = network(1, "sigmoid"), "binary_crossentropy"
    makes = THRESHOLDS[:: 1 if columns == "one column" else 5]
    metrics = [make() for make in makes]
    trainer = trainer_of(model, loss, metrics=metrics)
    logs, plan, p = step_of(trainer, x, y)
    clean, scores = predictions(model, x), evaluate(trainer, x, y)
    assert not np.array_equal(oracle.mixup(y, *plan[:2]) > 0, hard(y, plan) > 0)
    for make, metric in zip(makes, metrics, strict=True):
        np.testing.assert_allclose(logs[metric.name], of_keras(make, hard(y, plan), p), rtol=1e-4, err_msg=metric.name)
        np.testing.assert_allclose(scores[metric.name], of_keras(make, y, clean), rtol=1e-4, err_msg=metric.name)


def test_metrics_of_one_class_on_class_ids():
    x, y = data(32, (5,)), ids(32)
    make = lambda: M.Precision(thresholds=0.2, class_id=1, name="of_one")
    trainer = trainer_of(metrics=[make(), "accuracy"])
    logs, plan, p = step_of(trainer, x, y, validation_data=(x, y))
    np.testing.assert_allclose(logs["of_one"], of_keras(make, hard(one_hot(y), plan), p), rtol=1e-4)
    labels = oracle.mixup(one_hot(y), *plan[:2])
    assert logs["of_one"] != pytest.approx(of_keras(make, labels, p))
    assert logs["accuracy"] == pytest.approx(np.mean(labels.argmax(axis=1) == p.argmax(axis=1)))
    expected = of_keras(make, one_hot(y), predictions(trainer, x))
    for value in (evaluate(trainer, x, y)["of_one"], logs["val_of_one"]):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.slow
def test_weighted_metrics_and_many_outputs():
    (x, y), w = binary_batch(), np.linspace(0.2, 2, 32, dtype="float32")
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(1, "sigmoid", name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    make = lambda: M.Recall(name="recall")
    trainer = trainer_of(
        model,
        {"a": "binary_crossentropy", "b": "mse"},
        metrics={"a": [make()]},
        weighted_metrics={"b": [make(), "mae"]},
    )
    logs, plan, p = step_of(trainer, x, {"a": y, "b": y}, sample_weight={"a": w, "b": w})
    mixed, weights = oracle.weighted(y, w, *plan[:2])
    labels = (mixed >= 0.5).astype("float32")
    np.testing.assert_allclose(logs["a_recall"], of_keras(make, labels, p["a"]), rtol=1e-4)
    np.testing.assert_allclose(logs["b_recall"], of_keras(make, labels, p["b"], weights), rtol=1e-4)
    mae = np.average(np.abs(mixed - p["b"])[:, 0], weights=weights)
    assert logs["b_mae"] == pytest.approx(mae, rel=1e-4)


def test_metrics_that_are_right_on_soft_labels_see_them():
    x, y = data(32, (5,)), one_hot(ids(32))
    makes = [
        M.CategoricalAccuracy,
        lambda: M.TopKCategoricalAccuracy(2),
        M.CategoricalCrossentropy,
        M.MeanSquaredError,
        M.F1Score,
    ]
    metrics = [make() for make in makes]
    trainer = trainer_of(metrics=metrics)
    logs, plan, p = step_of(trainer, x, y)
    labels = oracle.mixup(y, *plan[:2]).astype("float32")
    for make, metric in zip(makes, metrics, strict=True):
        np.testing.assert_allclose(logs[metric.name], of_keras(make, labels, p), rtol=1e-4, err_msg=metric.name)
