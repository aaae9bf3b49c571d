"""Metrics that threshold labels or cast them to bool get hard labels in a training step, and only there."""

import functools
import json

import keras
import numpy as np
import pytest
from oracle import mixup

import kmix
from kmix.layers.training_step import TrainingStep, run_step
from kmix.training.hard_label_metrics import HardLabels, in_training

# Keras' BinaryIoU requests int64 from JAX.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")

NUMPY = keras.ops.convert_to_numpy
metrics = keras.metrics

HARDENED = {
    "auc": lambda: metrics.AUC(num_thresholds=50, name="auc"),
    "binary_accuracy": lambda: metrics.BinaryAccuracy(threshold=0.4),
    "binary_io_u": lambda: metrics.BinaryIoU(target_class_ids=[1], name="iou"),
    "false_negatives": lambda: metrics.FalseNegatives(name="fn"),
    "false_positives": lambda: metrics.FalsePositives(name="fp"),
    "precision": lambda: metrics.Precision(thresholds=[0.3, 0.7], name="precision"),
    "precision_at_recall": lambda: metrics.PrecisionAtRecall(0.5, name="par"),
    "recall": lambda: metrics.Recall(dtype="float64", name="recall"),
    "recall_at_precision": lambda: metrics.RecallAtPrecision(0.6, name="rap"),
    "sensitivity": lambda: metrics.SensitivityAtSpecificity(0.5, name="sas"),
    "specificity": lambda: metrics.SpecificityAtSensitivity(0.5, name="sps"),
    "true_negatives": lambda: metrics.TrueNegatives(name="tn"),
    "true_positives": lambda: metrics.TruePositives(name="tp"),
    "wrapped": lambda: metrics.MeanMetricWrapper(metrics.binary_accuracy, name="wrapped", threshold=0.4),
}
every_metric = pytest.mark.parametrize("build", HARDENED.values(), ids=list(HARDENED))


class MyAUC(metrics.AUC):
    pass


def data():
    rng = np.random.default_rng(0)
    return rng.random((64, 1)).astype("float32"), rng.random((64, 1)).astype("float32"), rng.integers(1, 4, 64)


@every_metric
def test_hard_labels_in_a_step_and_only_there(build):
    y, p, w = data()
    wrapped, (hard, soft) = in_training([build()])[0], (build(), build())
    assert isinstance(wrapped, HardLabels)
    assert wrapped.name == hard.name
    assert wrapped.dtype == hard.dtype
    with run_step(TrainingStep()):
        wrapped.update_state(y, p, sample_weight=w)
    hard.update_state((y >= 0.5).astype("float32"), p, sample_weight=w)
    soft.update_state(y, p, sample_weight=w)
    np.testing.assert_array_equal(NUMPY(wrapped.result()), NUMPY(hard.result()))
    assert not np.array_equal(NUMPY(soft.result()), NUMPY(hard.result()))
    assert len(wrapped.variables) == len(hard.variables) > 0
    wrapped.reset_state()
    assert all((NUMPY(variable) == 0).all() for variable in wrapped.variables)
    wrapped.update_state(y, p, sample_weight=w)
    np.testing.assert_array_equal(NUMPY(wrapped.result()), NUMPY(soft.result()))


@every_metric
def test_config_survives_json(build):
    wrapped = HardLabels(build(), name="another")
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(wrapped)))
    copied = keras.saving.deserialize_keras_object(serialized)
    assert copied.get_config() == wrapped.get_config()
    assert type(copied.metric) is type(wrapped.metric)
    assert (copied.name, copied.metric.name) == ("another", wrapped.metric.name)
    y, p, w = data()
    for metric in (copied, wrapped):
        metric.update_state(y, p, w)
    np.testing.assert_array_equal(NUMPY(copied.result()), NUMPY(wrapped.result()))


@every_metric
def test_stateless_use(build):
    """As on JAX."""
    y, p, w = data()
    y = (y >= 0.5).astype("float32")
    wrapped, bare = HardLabels(build()), build()
    states = [metric.stateless_reset_state() for metric in (wrapped, bare)]
    states = [m.stateless_update_state(s, y, p, sample_weight=w) for m, s in zip((wrapped, bare), states, strict=True)]
    results = [NUMPY(m.stateless_result(s)) for m, s in zip((wrapped, bare), states, strict=True)]
    np.testing.assert_array_equal(*results)
    assert any((NUMPY(value) > 0).any() for value in states[0])
    assert all((NUMPY(variable) == 0).all() for variable in wrapped.variables)


def test_names_classes_and_functions():
    names = ["AUC", "auc", "Precision", "recall", "TruePositives", "false_negatives", "BinaryIoU", "binary_io_u"]
    for name in [*names, "BinaryAccuracy", "binary_accuracy"]:
        (wrapped,) = in_training([name])
        assert type(wrapped.metric) is type(metrics.get(name))
        assert wrapped.name == name
    for metric in (MyAUC(), metrics.Recall, MyAUC):
        (wrapped,) = in_training([metric])
        assert isinstance(wrapped, HardLabels)
    (wrapped,) = in_training([metrics.binary_accuracy])
    assert (type(wrapped.metric), wrapped.name) == (metrics.MeanMetricWrapper, "binary_accuracy")
    assert isinstance(in_training([functools.partial(metrics.binary_accuracy, threshold=0.3)])[0], HardLabels)


def test_all_else_is_left_alone():
    others = ["mse", "categorical_accuracy", metrics.categorical_accuracy, None, lambda y, p: y]
    others += [metrics.CategoricalAccuracy(), metrics.CategoricalAccuracy, metrics.OneHotIoU(2, [0]), metrics.Mean()]
    others += [
        metrics.F1Score(),
        metrics.TopKCategoricalAccuracy(),
        metrics.BinaryCrossentropy(),
        "binary_crossentropy",
    ]
    others += [metrics.MeanMetricWrapper(lambda y, p: y), kmix.metrics.SoftLabelAccuracy(), HardLabels(metrics.AUC())]
    assert all(after is before for after, before in zip(in_training(others), others, strict=True))
    assert in_training(None) is None
    assert in_training([]) == []
    auc = metrics.AUC()
    nested = {"a": [auc, "mse"], "b": (None, ["mae", auc]), "c": auc, "d": None}
    once = in_training(nested)
    assert once["a"][0].metric is once["b"][1][1].metric is once["c"].metric is auc
    assert (once["a"][1], once["b"][0], once["b"][1][0], once["d"]) == ("mse", None, "mae", None)
    assert isinstance(once["b"], tuple)
    twice = in_training(once)
    assert twice["c"] is once["c"]
    assert twice["a"][0] is once["a"][0]


N = 512


def batch(perfect):
    """Labels of two classes, and a feature: the probability from a classifier that is perfect, or that guesses."""
    y, flip = np.random.default_rng(1).permutation([[0, 0], [0, 1], [1, 0], [1, 1]] * (N // 4)).T[..., None]
    return (y if perfect else flip).astype("float32"), y.astype("float32")


def trainer_on(metrics, **kwargs):
    """A trainer for a model that returns its inputs and learns nothing."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    trainer = kmix.MixTrainer(keras.Model(inputs, layer(inputs)), mixer=kmix.MixUp(0.4, seed=3))
    trainer.compile(keras.optimizers.SGD(0.0), "mse", metrics=metrics, **kwargs)
    return trainer


def fit(trainer, x, y, **kwargs):
    history = trainer.fit(x, y, batch_size=N, shuffle=False, verbose=0, **kwargs).history
    return {name: values[0] for name, values in history.items()}


def test_metrics_in_a_training_on_mixed_batches():
    """keras #16022: the scores of a coin flip and of a perfect classifier, exact and approximate."""
    x, y = batch(perfect=False)
    trainer = trainer_on([metrics.Precision(name="precision"), metrics.BinaryAccuracy(), "Recall"])
    logs = fit(trainer, x, y)
    plan = trainer.plan(0, N)
    predicted = mixup(x, plan.lam, plan.permutation) > 0.5
    positive = mixup(y, plan.lam, plan.permutation) >= 0.5
    np.testing.assert_allclose(logs["precision"], positive[predicted].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["Recall"], predicted[positive].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["binary_accuracy"], (predicted == positive).mean(), rtol=1e-5)
    np.testing.assert_allclose([logs["precision"], logs["binary_accuracy"]], 0.5, atol=0.05)
    x, y = batch(perfect=True)
    assert fit(trainer_on(["AUC"]), x, y)["AUC"] == pytest.approx(1.0)
    # Bare metrics are wrong there.
    bare = metrics.AUC()
    bare.update_state(mixup(y, plan.lam, plan.permutation), mixup(x, plan.lam, plan.permutation))
    assert float(bare.result()) < 0.98


@pytest.mark.slow
def test_evaluate_and_the_names_are_those_of_the_bare_model():
    rng = np.random.default_rng(2)
    x, y = rng.random((N, 1)).astype("float32"), rng.random((N, 1)).astype("float32")

    def given():
        names = ["AUC", "binary_accuracy", metrics.Precision(name="p"), metrics.binary_accuracy]
        return {"metrics": names, "weighted_metrics": [metrics.Recall(name="r"), "auc"]}

    trainer = trainer_on(**given())
    bare = trainer.model
    bare.compile(keras.optimizers.SGD(0.0), "mse", **given())
    weights = rng.random(N)
    ours, theirs = (
        model.evaluate(x, y, sample_weight=weights, batch_size=N, verbose=0, return_dict=True)
        for model in (trainer, bare)
    )
    assert ours == theirs
    ours, theirs = (
        fit(model, x, y, sample_weight=weights, validation_data=(x, y, weights)) for model in (trainer, bare)
    )
    assert list(ours) == list(theirs)
    assert {name: value for name, value in ours.items() if name.startswith("val_")} == {
        name: value for name, value in theirs.items() if name.startswith("val_")
    }
    assert ours["AUC"] != theirs["AUC"]


@pytest.mark.slow
def test_callbacks_tell_that_more_is_better():
    x, y = batch(perfect=True)
    stop = keras.callbacks.EarlyStopping("val_AUC", patience=0)
    fit(trainer_on(["AUC"]), x, y, validation_data=(x, y), callbacks=[stop])
    assert stop.monitor_op is keras.ops.greater
    assert stop.best == pytest.approx(1.0)


@pytest.mark.slow
def test_a_saved_trainer_has_the_metrics(tmp_path):
    x, y = batch(perfect=False)
    trainer = trainer_on([metrics.Precision(thresholds=0.3, name="p"), "AUC"])
    fit(trainer, x, y)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    ours, theirs = (model.evaluate(x, y, verbose=0, return_dict=True) for model in (trainer, loaded))
    assert ours == theirs
    assert set(ours) == {"loss", "p", "AUC"}
    assert fit(loaded, x, y)["p"] == fit(trainer, x, y)["p"]


@pytest.mark.slow
def test_several_outputs():
    inputs = keras.Input((1,))
    outputs = {name: keras.layers.Dense(1, kernel_initializer="ones", name=name)(inputs) for name in "ab"}
    trainer = kmix.MixTrainer(keras.Model(inputs, outputs), mixer=kmix.MixUp(0.4, seed=3))
    trainer.compile(keras.optimizers.SGD(0.0), "mse", metrics={"a": ["AUC"], "b": [metrics.Precision(name="p"), "mse"]})
    x, y = batch(perfect=True)
    logs = fit(trainer, x, {"a": y, "b": y})
    assert logs["a_AUC"] == pytest.approx(1.0)
    assert logs["b_p"] == pytest.approx(1.0, abs=0.02)
    assert "b_mse" in logs
