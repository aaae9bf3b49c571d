"""`class_weight`: weights of the samples before mixing; and weights for each label of multi-label data."""

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    LAYERS_AND_PATHS,
    assert_near,
    at_step,
    call,
    cutmix,
    data,
    evaluate,
    every_layer_and_path,
    every_path,
    fit,
    ids,
    mixed_inputs,
    mixed_loss,
    mixup,
    one_hot,
    plan_of,
    predictions,
    raises,
    tf,
    trainer_of,
)

import kmix
from kmix.targets import LabelPairs, Labels

CLASS_WEIGHT = {0: 1.0, 1: 3.0, 2: 0.5}


def weights_of(y, class_weight=CLASS_WEIGHT):
    return np.array([class_weight.get(int(label), 1.0) for label in np.ravel(y)])


FORMS = {
    "ids": lambda y: y,
    "one-hot": one_hot,
    "column": lambda y: y[:, None],
    "bytes": lambda y: y.astype("uint8"),
    "integer one-hot": lambda y: one_hot(y).astype("int32"),
}


@pytest.mark.parametrize(
    ("form", "make", "path"), [(form, *each) for form, each in zip(FORMS, LAYERS_AND_PATHS, strict=True)]
)
def test_class_weights_become_weights_of_the_pair(form, make, path):
    x, y = data(), ids()
    layer = make(target=Labels(None if "one-hot" in form else 3, class_weight=CLASS_WEIGHT))
    plan = plan_of(layer)
    expected = mixed_inputs(x, plan), *oracle.weighted(one_hot(y), weights_of(y), *plan[:2])
    for ours in (at_step(path, layer, 0, (x, FORMS[form](y))), call(path, layer, (x, FORMS[form](y)))):
        assert_near(ours, expected)
        assert ours[2].dtype == "float32"


@every_layer_and_path
def test_class_weights_multiply_into_the_weights_that_there_are(make, path):
    shape = (6, 1) if path == "native" else (6,)
    x, y, w = data(), ids(), np.linspace(0.0, 2, 6, dtype="float32")
    layer = make(target=Labels(3, class_weight=CLASS_WEIGHT))
    plan = plan_of(layer)
    labels, weights = oracle.weighted(one_hot(y), w * weights_of(y), *plan[:2])
    ours = at_step(path, layer, 0, (x, y, w.reshape(shape)))
    assert_near(ours[1:], (labels, weights.reshape(shape)))


@every_path
def test_a_class_that_is_missing_weighs_one(path):
    x, y = data(), ids()
    for class_weight in ({1: 4.0}, {0: 0.0, 2: 0}):
        layer = mixup(target=Labels(3, class_weight=class_weight))
        expected = oracle.weighted(one_hot(y), weights_of(y, class_weight), *plan_of(layer)[:2])
        assert_near(at_step(path, layer, 0, (x, y))[1:], expected)


@every_path
def test_class_weights_of_pairs(path):
    """Pairs take them as sample weights."""
    x, y = data(16), ids(16, 5)
    class_weight = {0: 1.0, 1: 3.0, 4: 0.25}
    w = weights_of(y, class_weight).astype("float32")
    layer = mixup(target=LabelPairs(5))
    plan = plan_of(layer, n=16)
    labels, weights = oracle.weighted(oracle.one_hot(y, 5), w, *plan[:2])
    ours = at_step(path, layer, 0, (x, y, w))
    assert ours[1].shape == (16, 3)
    assert_near(oracle.dense(ours[1], 5), labels)
    assert_near(ours[2], weights)


@every_layer_and_path
def test_a_dictionary_gets_a_key(make, path):
    x, y, w = data(), ids(), np.linspace(0.5, 2, 6, dtype="float32")
    layer = make(target=Labels(3, class_weight=CLASS_WEIGHT))
    for batch, weights in (({}, 1), ({"sample_weight": w}, w)):
        ours = at_step(path, layer, 0, {"images": x, "labels": y, **batch})
        assert set(ours) == {"images", "labels", "sample_weight"}
        labels, weights = oracle.weighted(one_hot(y), weights * weights_of(y), *plan_of(layer)[:2])
        assert_near((ours["labels"], ours["sample_weight"]), (labels, weights))


@pytest.mark.fast("*-native")
@every_layer_and_path
def test_each_of_several_labels_has_its_own_weights(make, path):
    """Keras needs sample weights for all labels or for none: where nothing was given, they are 1."""
    x, y, w = data(), {"a": ids(), "b": ids(seed=2), "kept": ids()}, np.linspace(0.5, 2, 6, dtype="float32")
    layer = make(target={"a": Labels(3, class_weight=CLASS_WEIGHT), "b": Labels(3), "kept": "keep"})
    plan = plan_of(layer)
    for batch, given in (((x, y), np.ones(6)), ((x, y, w), w)):
        a, weights = oracle.weighted(one_hot(y["a"]), given * weights_of(y["a"]), *plan[:2])
        b, others = oracle.weighted(one_hot(y["b"]), given, *plan[:2])
        expected = {"a": weights, "b": others, "kept": others}
        ours = at_step(path, layer, 0, batch)[1:]
        assert_near(ours, ({"a": a, "b": b, "kept": y["kept"]}, expected))
    one_target = make(target=Labels(3, class_weight=CLASS_WEIGHT))
    ours = at_step(path, one_target, 0, (x, (y["a"], y["b"]), w))
    assert_near(ours[2][0], weights)


@pytest.mark.parametrize(
    "class_weight", [[1.0, 2.0], {0: -1.0}, {0: "a"}, {"a": 1.0}, {0: float("nan")}, 2.0], ids=repr
)
def test_weights_that_are_none(class_weight):
    raises(lambda: mixup(target=Labels(3, class_weight=class_weight)), "class_weight", errors=(TypeError, ValueError))


@pytest.mark.fast("CutMix")
@pytest.mark.parametrize("make", [mixup, cutmix], ids=["MixUp", "CutMix"])
def test_the_loss_of_fit_is_the_weighted_pair(make):
    x, y = data(12), ids(12)
    layer = make(target=Labels(3, class_weight=CLASS_WEIGHT))
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    ds = tf.data.Dataset.from_tensors((x, y)).enumerate().map(layer.at_step)
    logged = model.fit(ds, verbose=0).history["loss"][0]
    plan, w = plan_of(layer, n=12), weights_of(y)
    p = model.predict(mixed_inputs(x, plan).astype("float32"), verbose=0)
    own, other = (oracle.crossentropy(one_hot(labels), p) for labels in (y, y[plan.permutation]))
    pair = plan.lam * w * own + (1 - plan.lam) * w[plan.permutation] * other
    assert logged == pytest.approx(pair.mean(), rel=1e-4)


@pytest.mark.slow
def test_class_weights_of_the_layer_in_a_step():
    class_weight, x, y = {0: 1.0, 1: 3.0}, data(12, (5,)), ids(12)
    w = np.array([class_weight.get(int(label), 1.0) for label in y])
    given = np.linspace(0.2, 2, 12, dtype="float32")
    for labels, settings, weights in ((y, {}, w), (one_hot(y), {"sample_weight": given}, w * given)):
        trainer = trainer_of(mixer=mixup(target=Labels(class_weight=class_weight)))
        logged = fit(trainer, x, labels, **settings)["loss"]
        assert logged == pytest.approx(mixed_loss(trainer, x, one_hot(y), weights=weights), rel=1e-4)
        clean = oracle.crossentropy(one_hot(y), predictions(trainer.model, x)).mean()
        assert evaluate(trainer, x, labels)["loss"] == pytest.approx(clean, rel=1e-4)


def per_class(y, w, p):
    return -(w * (y * np.log(p) + (1 - y) * np.log(1 - p)))


@every_layer_and_path
def test_the_mixed_loss_is_that_of_the_pair_class_by_class(make, path):
    dtype = "int32" if path == "native" else "float32"
    x, y, w = data(), data(6, (4,), 1).round().astype(dtype), data(6, (4,), 2).round() * 2
    layer = make()
    plan = plan_of(layer)
    _, labels, weights = at_step(path, layer, 0, (x, y, w))
    expected = oracle.weighted(
        y.reshape(-1), w.reshape(-1), np.repeat(plan.lam, 4), (plan.permutation[:, None] * 4 + np.arange(4)).reshape(-1)
    )
    assert_near((labels, weights), tuple(array.reshape(6, 4) for array in expected))
    p = data(6, (4,), 3) * 0.8 + 0.1
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    pair = [per_class(y[rows], w[rows], p) for rows in (np.arange(6), plan.permutation)]
    pair = plan.lam[:, None] * pair[0] + (1 - plan.lam)[:, None] * pair[1]
    assert float(loss(labels, p, sample_weight=weights)) == pytest.approx(pair.mean(), rel=1e-4)
