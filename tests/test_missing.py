"""`nan_is_missing`: a mixed label keeps what one of the partners knows, and weighs as much; against NumPy."""

import keras
import numpy as np
import oracle
import pytest
from contract import PROMISES, check_spec
from helpers import at_step, every_path, to_numpy

import kmix
from kmix.targets import Labels

N, TASKS = 8, 3
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(N, 5)).astype("float32")
Y = np.where(GENERATOR.random((N, TASKS)) < 0.4, np.nan, GENERATOR.random((N, TASKS))).astype("float32")
WEIGHTS = np.linspace(0.5, 2, N).astype("float32")


def mixup(target=None, **settings):
    return kmix.MixUp(1.0, seed=2, target=target or Labels(nan_is_missing=True), **settings)


def by_hand(y, plan, weights=None):
    """The weighted mean of the known values of both partners, and the sum of their weights."""
    w = np.ones(N) if weights is None else weights.astype("float64")
    lam = plan.lam.astype("float64")
    first, second = lam * w, (1 - lam) * w[plan.permutation]
    shape = (-1,) + (1,) * (y.ndim - 1)
    a = first.reshape(shape) * ~np.isnan(y)
    b = second.reshape(shape) * ~np.isnan(y[plan.permutation])
    total = a + b
    mixed = a * np.nan_to_num(y) + b * np.nan_to_num(y[plan.permutation])
    return np.where(total == 0, 0, mixed / np.where(total == 0, 1, total)), total


@every_path
@pytest.mark.parametrize("weighted", [False, True])
def test_an_entry_keeps_what_one_partner_knows(weighted, path):
    plan, weights = mixup().plan(1, N), WEIGHTS if weighted else None
    _, y, w = at_step(path, mixup(), 1, (X, Y, weights) if weighted else (X, Y))
    expected, total = by_hand(Y, plan, weights)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(w, total, atol=1e-5)
    assert (total == 0).any()


@every_path
def test_several_labels_get_weights_of_their_own(path):
    y = {"age": Y[:, 0], "kind": Y, "size": Y[:, 1:2]}
    plan = mixup().plan(0, N)
    _, mixed, w = at_step(path, mixup(), 0, (X, y))
    for name, label in y.items():
        expected, total = by_hand(label, plan)
        np.testing.assert_allclose(mixed[name], expected, atol=1e-5)
        np.testing.assert_allclose(w[name], total[:, 0] if name == "size" else total, atol=1e-5)
    assert w["size"].shape == (N,)


@pytest.mark.fast("tfdata-True", "native-*")
@pytest.mark.parametrize("weighted", [False, True])
@every_path
def test_weights_come_in_the_structure_of_the_labels(path, weighted):
    """Those that labels create, and ones where nothing was given: Keras refuses gaps."""
    ids, rare = np.arange(N) % 3, np.arange(N) % 2
    y = {"age": Y[:, 0], "kind": ids, "rare": (rare,), "id": np.arange(N)}
    target = {
        "age": Labels(nan_is_missing=True),
        "kind": Labels(3),
        "rare": [Labels(2, class_weight={1: 3.0})],
        "id": "keep",
    }
    layer, given = mixup(target), WEIGHTS if weighted else np.ones(N, "float32")
    plan, batch = layer.plan(2, N), (X, y, WEIGHTS) if weighted else (X, y)
    _, mixed, w = at_step(path, layer, 2, batch)
    expected, total = by_hand(Y[:, 0], plan, given)
    np.testing.assert_allclose(mixed["age"], expected, atol=1e-5)
    np.testing.assert_allclose(w["age"], total, atol=1e-5)
    factor = np.where(rare == 1, 3.0, 1.0) * given
    for ours, weight, hot, weights in (
        (mixed["kind"], w["kind"], np.eye(3)[ids], given),
        (mixed["rare"][0], w["rare"][0], np.eye(2)[rare], factor),
    ):
        labels, total = oracle.weighted(hot, weights, *plan[:2])
        np.testing.assert_allclose(ours, labels, atol=1e-5)
        np.testing.assert_allclose(weight, total, atol=1e-5)
    np.testing.assert_array_equal(mixed["id"], y["id"])
    np.testing.assert_allclose(w["id"], oracle.mixup(given, *plan[:2]), atol=1e-6)
    if path == "numpy":
        check_spec(layer, batch)


def test_weights_in_a_structure_stay_with_what_is_kept():
    y, target = {"kind": np.arange(N) % 3, "id": np.arange(N)}, {"kind": Labels(3, class_weight={1: 2.0}), "id": "keep"}
    layer, weights = mixup(target), {"kind": WEIGHTS, "id": WEIGHTS[::-1].copy()}
    plan = layer.plan(2, N)
    _, _, w = layer.at_step(2, (X, y, weights))
    factor = np.where(y["kind"] == 1, 2.0, 1.0)
    np.testing.assert_allclose(w["kind"], oracle.mixup(factor * WEIGHTS, *plan[:2]), atol=1e-6)
    np.testing.assert_allclose(w["id"], oracle.mixup(WEIGHTS[::-1], *plan[:2]), atol=1e-6)
    check_spec(layer, (X, y, weights))


def mosaic():
    return kmix.Mosaic(target=Labels(nan_is_missing=True), data_format="channels_last", seed=1)


@pytest.mark.fast("mixup")
@pytest.mark.parametrize("make", [mixup, mosaic])
def test_the_promises_hold(make):
    batch = (X, Y) if make is mixup else (GENERATOR.random((N, 4, 4, 1)).astype("float32"), Y)
    for promise in PROMISES:
        # These look at labels and weights of their own.
        if promise.__name__ not in ("check_once", "check_off", "check_second_batch"):
            promise(make(), batch)
    y, w = make().from_config({**make().get_config(), "rate": 0.0}).at_step(0, batch)[1:]
    np.testing.assert_array_equal(y, np.nan_to_num(Y))
    np.testing.assert_array_equal(w, ~np.isnan(Y))


@pytest.mark.slow
def test_two_outputs_train_on_what_is_known():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("age", "size")}
    y = {"age": Y[:, :1], "size": Y[:, 1:2]}
    model = keras.Model(inputs, outputs)
    trainer = kmix.MixTrainer(model, mixup())
    trainer.compile(keras.optimizers.SGD(0.0), {"age": "mse", "size": "mse"})
    plan = mixup().plan(0, N)
    lam = plan.lam[:, None]
    predicted = model.predict(lam * X + (1 - lam) * X[plan.permutation], verbose=0)
    expected = 0.0
    for name, label in y.items():
        mixed, total = by_hand(label, plan)
        expected += np.mean(total * (mixed - predicted[name]) ** 2)
    assert trainer.train_on_batch(X, y, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_gaps_of_one_label_say_nothing_of_another():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(units, name=name)(inputs) for name, units in (("age", 1), ("size", 2))}
    model, y = keras.Model(inputs, outputs), {"age": Y[:, :1], "size": X[:, :2]}
    target = {"age": Labels(nan_is_missing=True), "size": Labels()}
    trainer = kmix.MixTrainer(model, mixup(target))
    trainer.compile(keras.optimizers.SGD(0.0), {"age": "mse", "size": "mse"})
    plan = mixup().plan(0, N)
    predicted = model.predict(oracle.mixup(X, *plan[:2]), verbose=0)
    mixed, total = by_hand(y["age"], plan)
    expected = np.mean(total * (mixed - predicted["age"]) ** 2)
    expected += np.mean((oracle.mixup(y["size"], *plan[:2]) - predicted["size"]) ** 2)
    assert trainer.train_on_batch(X, y, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)


def test_losses_of_labels_with_gaps_are_not_mixed():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="nan_is_missing"):
        kmix.MixTrainer(model, mixup(), mix_losses=True)


def test_the_loss_of_several_classes_takes_the_weights():
    known = (GENERATOR.random((N, TASKS)) < 0.5).astype("float32")
    y = np.where(np.isnan(Y), np.nan, known).astype("float32")
    mixed = mixup().at_step(0, (X, y))
    p = GENERATOR.random((N, TASKS)).astype("float32") * 0.8 + 0.1
    loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    target, total = by_hand(y, mixup().plan(0, N))
    rows = -total * (target * np.log(p) + (1 - target) * np.log(1 - p))
    assert float(to_numpy(loss(mixed[1], p, mixed[2]))) == pytest.approx(rows.mean(), rel=1e-5)


REFUSED = {
    "class ids": (lambda: mixup(Labels(3, nan_is_missing=True))(X, np.arange(N) % 3), "One-hot encode"),
    "class weights": (lambda: Labels(class_weight={0: 1.0}, nan_is_missing=True), "class_weight"),
    "many axes": (lambda: mixup()(X, np.zeros((N, 2, 2), "float32")), "nan_is_missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_gaps_is_refused(name):
    function, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        function()


def test_without_it_nan_stays():
    assert np.isnan(kmix.MixUp(1.0, seed=2)(X, Y)[1]).any()
