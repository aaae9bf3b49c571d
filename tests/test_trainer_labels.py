"""Labels in a training step: several outputs, targets, forms that change, and how many classes there are."""

import itertools
import json

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    BACKEND,
    CLASSES,
    REFUSALS,
    data,
    deep,
    embedding,
    evaluate,
    fit,
    ids,
    mixed_loss,
    mixup,
    network,
    no_weight_changes,
    one_hot,
    placed_model,
    predictions,
    raises,
    right_or_refused,
    step_of,
    tf,
    to_numpy,
    trainer_of,
)
from keras import ops

import kmix
from kmix.targets import Labels


def many(as_dict):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {n: keras.layers.Dense(c, "softmax", name=n)(inputs) for n, c in (("root", 7), ("vowel", 3))}
    return keras.Model(inputs, outputs if as_dict else list(outputs.values()))


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize(
    ("as_dict", "where"), [(True, "trainer"), (True, "layer"), (False, "trainer"), (False, "inferred")]
)
def test_a_number_of_classes_for_each_output(where, as_dict):
    classes = {"root": 7, "vowel": 3}
    x, y = data(14, (5,)), {"root": ids(14, 7), "vowel": ids(14, 3)}
    target = {name: Labels(number) for name, number in classes.items()}
    settings = {"target": target if as_dict else list(target.values())}
    loss = dict.fromkeys(classes, "categorical_crossentropy")
    trainer = trainer_of(
        many(as_dict),
        loss if as_dict else list(loss.values()),
        mixer=mixup(**(settings if where == "layer" else {})),
        **(settings if where == "trainer" else {}),
    )
    given = y if as_dict else list(y.values())
    logged, plan = fit(trainer, x, given)["loss"], trainer.plan(0, 14)

    def loss_of(inputs, labels):
        p = predictions(trainer.model, inputs)
        p = p if as_dict else dict(zip(classes, p, strict=True))
        return sum(oracle.crossentropy(labels[name], p[name]).mean() for name in classes)

    encoded = {name: one_hot(y[name], classes[name]) for name in classes}
    mixed = {name: oracle.mixup(labels, *plan[:2]) for name, labels in encoded.items()}
    assert logged == pytest.approx(loss_of(oracle.mixup(x, *plan[:2]), mixed), rel=1e-4)
    assert evaluate(trainer, x, given)["loss"] == pytest.approx(loss_of(x, encoded), rel=1e-4)


def test_trainer_and_layer_agree_on_the_number():
    raises(
        lambda: kmix.MixTrainer(network(), mixup(num_classes=3), num_classes=4),
        "num_classes",
        errors=ValueError,
    )
    target = {"root": Labels(7), "vowel": Labels(3)}
    raises(
        lambda: kmix.MixTrainer(many(True), mixup(target=target), target={**target, "root": Labels(8)}),
        "target",
        errors=ValueError,
    )
    raises(lambda: kmix.MixTrainer(many(True), mixup(), num_classes={"root": 7}), "num_classes", errors=TypeError)
    trainer = trainer_of(
        many(True), dict.fromkeys(("root", "vowel"), "categorical_crossentropy"), target={**target, "tone": Labels(2)}
    )
    y = {"root": ids(14, 7), "vowel": ids(14, 3)}
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(14, (5,)), y), "target", "tone")


def test_a_target_for_each_output_and_weights():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {n: keras.layers.Dense(CLASSES, "softmax", name=n)(inputs) for n in ("mixed", "kept", "swapped")}
    model = keras.Model(inputs, outputs)
    trainer = trainer_of(
        model,
        dict.fromkeys(outputs, "categorical_crossentropy"),
        target={"mixed": "labels", "kept": "keep", "swapped": lambda y, plan: ops.take(y, plan.permutation, axis=0)},
    )
    x, w = data(12, (5,)), np.linspace(0.2, 2, 12, dtype="float32")
    y = {name: one_hot(ids(12, seed=i)) for i, name in enumerate(outputs)}
    logs, plan, p = step_of(trainer, x, y, sample_weight=dict.fromkeys(y, w))
    labels, weights = oracle.weighted(y["mixed"], w, *plan[:2])
    expected = {"mixed": labels, "kept": y["kept"], "swapped": y["swapped"][plan.permutation]}
    losses = [(weights * oracle.crossentropy(expected[name], p[name])).mean() for name in outputs]
    assert logs["loss"] == pytest.approx(sum(losses), rel=1e-4)
    clean = predictions(model, x)
    losses = [oracle.crossentropy(y[name], clean[name]).mean() for name in outputs]
    assert evaluate(trainer, x, y)["loss"] == pytest.approx(sum(losses), rel=1e-4)


@pytest.mark.fast("mixer")
@pytest.mark.parametrize("way", ["mixer", "placed", "places"])
def test_a_target_on_each_of_the_three_ways(way):
    x, y = data(12, (5,)), one_hot(ids(12))
    model = placed_model() if way == "placed" else deep()
    settings = {"placed": {"placed": True}, "places": {"mixer": embedding(), "places": ["input"]}, "mixer": {}}[way]
    trainer = trainer_of(model, target="keep", **settings)
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 12)
    # Everything before the mixing layer of `placed` is linear, so mixing there equals mixing the inputs.
    p = predictions(deep() if way != "placed" else model, oracle.mixup(x, *plan[:2]))
    assert logged == pytest.approx(oracle.crossentropy(y, p).mean(), rel=1e-4)


def test_labels_of_any_shape_for_positions_to_regress():
    x, y = data(6, (4, 2)), data(6, (4, 3), 1) * 9 - 4
    trainer = trainer_of(network(3, None, (4, 2)), "mse", target=Labels(any_shape=True))
    logs, plan, p = step_of(trainer, x, y)
    assert logs["loss"] == pytest.approx(np.mean((oracle.mixup(y, *plan[:2]) - p) ** 2), rel=1e-4)


def test_a_target_that_is_unknown_or_unlike_the_labels():
    for target in ("mask", {"a": "boxes"}):
        raises(lambda target=target: kmix.MixTrainer(network(), mixup(), target=target), "labels", "keep", "union")
    trainer = trainer_of(target={"a": "keep"})
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(6, (5,)), one_hot(ids())), "target")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_classes": 7},
        {"target": "keep"},
        {"target": {"root": Labels(7), "vowel": "union"}},
    ],
    ids=str,
)
def test_settings_in_the_config(settings):
    trainer = kmix.MixTrainer(many(True), mixer=mixup(), **settings)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(trainer))))
    assert {name: getattr(copy, name) for name in settings} == settings
    # The config of the model is Keras' own.
    ours, expected = ({**each.get_config(), "model": None} for each in (copy, trainer))
    assert ours == expected


FLOATS = {
    "(B,)": ids().astype("float32"),
    "(B, 1)": ids().astype("float32")[:, None],
    "float64": ids().astype("float64"),
}


@pytest.mark.in_turn
@pytest.mark.fast("(B,)*")
@pytest.mark.xla
@pytest.mark.parametrize(
    ("name", "loss", "num_classes"),
    [
        ("(B,)", "kmix", None),
        ("(B, 1)", "kmix", None),
        ("(B, 1)", "kmix", CLASSES),
        ("float64", "kmix", None),
        ("(B,)", "categorical_crossentropy", None),
        ("(B, 1)", "categorical_crossentropy", CLASSES),
    ],
)
def test_float_ids_are_encoded_or_refused(name, num_classes, loss):
    x, y = data(6, (5,)), one_hot(ids())
    loss = kmix.losses.SoftLabelCrossentropy() if loss == "kmix" else loss
    trainer = trainer_of(loss=loss, rate=0.5, metrics=["accuracy"], num_classes=num_classes)
    p = predictions(trainer.model, x)
    expected = {"loss": oracle.crossentropy(y, p).mean(), "accuracy": np.mean(p.argmax(axis=1) == ids())}
    right_or_refused(trainer.model, lambda: evaluate(trainer, x, FLOATS[name]), expected, "float")
    expected = {"loss": mixed_loss(trainer, x, y)}
    right_or_refused(trainer.model, lambda: fit(trainer, x, FLOATS[name]), expected, "float")
    assert all(np.isfinite(weight).all() for weight in trainer.model.get_weights())


@pytest.mark.slow
def test_floats_of_one_column_are_probabilities():
    x, y = data(32, (5,)), ids(32, 2).astype("float32")[:, None]
    for loss in ("binary_crossentropy", kmix.losses.SoftLabelCrossentropy(multi_label=True)):
        trainer = trainer_of(network(1, "sigmoid"), loss)
        logs, plan, p = step_of(trainer, x, y)
        assert logs["loss"] == pytest.approx(oracle.binary_crossentropy(oracle.mixup(y, *plan[:2]), p).mean(), rel=1e-4)


def test_values_to_regress_stay_values():
    x, y = data(6, (5,)), np.linspace(-3, 9, 6, dtype="float32")
    for values in (y, y[:, None]):
        trainer = trainer_of(network(1, None), "mse")
        logs, plan, p = step_of(trainer, x, values)
        assert logs["loss"] == pytest.approx(np.mean((oracle.mixup(y, *plan[:2]) - p[:, 0]) ** 2), rel=1e-4)


FORMS = {
    "ids": ids(),
    "column": ids()[:, None],
    "one-hot": one_hot(ids()),
    "float column": ids().astype("float32")[:, None],
}


# The other backends trace each form separately.
ORDERS = list(itertools.permutations(FORMS, 2))[:: 1 if BACKEND == "tensorflow" else 4]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_every_order_of_two_label_forms(first, second):
    """TensorFlow traces the second form with an unknown last axis."""
    x, y = data(6, (5,)), one_hot(ids())
    trainer = trainer_of(metrics=["accuracy"])
    p = predictions(trainer.model, x)
    clean = {"loss": oracle.crossentropy(y, p).mean(), "accuracy": np.mean(p.argmax(axis=1) == ids())}
    for name in (first, second):
        right_or_refused(trainer.model, lambda name=name: evaluate(trainer, x, FORMS[name]), clean)
        mixed = {"loss": mixed_loss(trainer, x, y, step=int(trainer.step))}
        taken = right_or_refused(trainer.model, lambda name=name: fit(trainer, x, FORMS[name]), mixed)
        assert taken or name == "float column", "a form that is right alone is right in every order"


@pytest.mark.fast("ids-None")
@pytest.mark.parametrize(
    ("form", "known"),
    [(form, known) for form in FORMS for known in (None, "rank") if BACKEND == "tensorflow" or form == "column"],
)
def test_labels_of_a_python_function(known, form):
    x, labels, y = data(6, (5,)), FORMS[form], one_hot(ids())

    def vague(x, y):
        hidden = tf.numpy_function(lambda value: value, [y], labels.dtype)
        if known:
            hidden = tf.ensure_shape(hidden, [None] * labels.ndim)
        return tf.ensure_shape(x, (None, 5)), hidden

    ds = tf.data.Dataset.from_tensors((x, labels)).map(vague)
    trainer = trainer_of(rate=0.5)
    clean = {"loss": oracle.crossentropy(y, predictions(trainer.model, x)).mean()}
    mixed = {"loss": mixed_loss(trainer, x, y)}
    right_or_refused(trainer.model, lambda: trainer.evaluate(ds, verbose=0, return_dict=True), clean)
    right_or_refused(
        trainer.model,
        lambda: {name: values[0] for name, values in trainer.fit(ds, verbose=0).history.items()},
        mixed,
    )


def metric_loss(y_true, y_pred):
    """A loss on embeddings and one-hot labels: embeddings of one class should be close."""
    near = ops.matmul(y_true, ops.transpose(y_true))
    return ops.mean((ops.matmul(y_pred, ops.transpose(y_pred)) - near) ** 2, axis=-1)


NO_CLASSES = {
    "function": lambda: metric_loss,
    "mse": lambda: "mse",
    "cosine": lambda: keras.losses.CosineSimilarity(),
}


TELLING = {
    "kmix": lambda: kmix.losses.SoftLabelCrossentropy(),
    "name": lambda: "categorical_crossentropy",
    "function": lambda: keras.losses.categorical_crossentropy,
    "focal": lambda: keras.losses.CategoricalFocalCrossentropy(),
    "binary": lambda: keras.losses.BinaryCrossentropy(),
    "binary focal": lambda: keras.losses.BinaryFocalCrossentropy(),
    "hinge": lambda: keras.losses.CategoricalHinge(),
    "divergence": lambda: keras.losses.KLDivergence(),
}


@pytest.mark.fast("function")
@pytest.mark.parametrize("name", NO_CLASSES)
def test_the_number_of_classes_is_asked_for(name):
    x, y, loss = data(12, (5,)), ids(12), NO_CLASSES[name]()
    trainer = trainer_of(network(8, None), loss, rate=0.5)
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, x, y), "num_classes")
        raises(lambda: evaluate(trainer, x, y), "num_classes")


def test_with_the_number_the_labels_have_it():
    x, y = data(12, (5,)), ids(12)
    trainer = trainer_of(network(8, None), metric_loss, num_classes=CLASSES)
    logs, plan, p = step_of(trainer, x, y)
    labels = oracle.mixup(one_hot(y), *plan[:2])
    assert logs["loss"] == pytest.approx(np.mean((p @ p.T - labels @ labels.T) ** 2), rel=1e-3)


@pytest.mark.in_turn
@pytest.mark.fast("kmix")
@pytest.mark.parametrize("name", TELLING)
def test_the_loss_may_tell_that_columns_are_classes(name):
    x, y = data(12, (5,)), ids(12)
    # On TensorFlow, Keras takes the input of a softmax for the logits of a binary loss.
    trainer = trainer_of(network(activation="sigmoid" if "binary" in name else "softmax"), TELLING[name]())
    logs, plan, p = step_of(trainer, x, y)
    loss, labels = keras.losses.get(TELLING[name]()), oracle.mixup(one_hot(y), *plan[:2])
    assert logs["loss"] == pytest.approx(np.mean(to_numpy(loss(labels.astype("float32"), p))), rel=1e-4)


@pytest.mark.slow
def test_each_output_by_its_own_loss():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    outputs = {"kind": keras.layers.Dense(CLASSES, "softmax", name="kind")(inputs)}
    outputs["code"] = keras.layers.Dense(8, name="code")(inputs)
    losses = {"kind": "categorical_crossentropy", "code": metric_loss}
    y = {"kind": ids(12), "code": ids(12)}
    trainer = trainer_of(keras.Model(inputs, outputs), losses)
    with no_weight_changes(trainer.model):
        raises(lambda: fit(trainer, data(12, (5,)), y), "num_classes")
    trainer = trainer_of(keras.Model(inputs, outputs), losses, target={"kind": "labels", "code": Labels(CLASSES)})
    x = data(12, (5,))
    logs, plan, p = step_of(trainer, x, y)
    labels = oracle.mixup(one_hot(y["kind"]), *plan[:2])
    expected = oracle.crossentropy(labels, p["kind"]).mean()
    expected += np.mean((p["code"] @ p["code"].T - labels @ labels.T) ** 2)
    assert logs["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.xla
@pytest.mark.parametrize("loss", ["mse", "kmix"])
def test_integer_columns_that_are_not_multi_hot_are_not_trained_in_silence(loss):
    x, y = data(6, (5,)), ids(18, 9).reshape(6, 3)
    trainer = trainer_of(network(3, None), "mse" if loss == "mse" else None)
    try:
        logged = fit(trainer, x, y)["loss"]
    except REFUSALS:
        return
    assert np.isnan(logged)


@pytest.mark.slow
def test_multi_hot_columns_and_floats_are_right():
    x, bits = data(6, (5,)), data(6, (3,), 1).round()
    for y in (bits.astype("int32"), bits.astype("bool"), bits * 9 - 3):
        multi_hot = y.dtype != "float32"
        loss = "binary_crossentropy" if multi_hot else "mse"
        trainer = trainer_of(network(3, "sigmoid" if multi_hot else None), loss)
        logs, plan, p = step_of(trainer, x, y)
        labels = oracle.mixup(y, *plan[:2])
        expected = oracle.binary_crossentropy(labels, p) if multi_hot else (labels - p) ** 2
        assert logs["loss"] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label smoothing", "binary cross-entropy"])
def test_losses_with_settings_under_a_choice(kind):
    x, y = data(12, (4, 4, 1)), ids(12)
    keras.utils.set_random_seed(1)
    smooth = kind == "label smoothing"
    top = keras.layers.Dense(CLASSES, "softmax" if smooth else "sigmoid")
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), top])
    mixer = kmix.RandomChoice([mixup(), kmix.CutMix(seed=2, data_format="channels_last")], seed=5)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1) if smooth else "binary_crossentropy"
    trainer = trainer_of(model, loss, mixer=mixer)
    blends = set()
    for step in range(6):
        logged, plan = fit(trainer, x, y)["loss"], trainer.plan(step, 12, spatial_shape=(4, 4))
        blended = plan.box is None
        mixed = oracle.mixup(x, *plan[:2]) if blended else oracle.cutmix(x, plan.box, plan.permutation)
        p, labels = predictions(model, mixed), oracle.mixup(one_hot(y), *plan[:2])
        smoothed = labels * 0.9 + 0.1 / CLASSES
        expected = oracle.crossentropy(smoothed, p) if smooth else oracle.binary_crossentropy(labels, p)
        assert logged == pytest.approx(expected.mean(), rel=1e-4)
        blends.add(blended)
    assert blends == {True, False}
