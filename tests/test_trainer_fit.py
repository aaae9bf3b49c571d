"""MixTrainer under `fit`: kinds of data and models, alpha and step, state, evaluation, export."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import oracle
import pytest
from helpers import tf
from test_trainer import CLASSES, RATE, compiled, flat, ids, linear, numbers, step_of_linear

import kmix

BACKEND = keras.backend.backend()
X, Y = numbers(24, 6, 6, 2), ids(24)
SOFT = np.eye(CLASSES, dtype="float32")[Y]
only = lambda *backends, why: pytest.mark.skipif(BACKEND not in backends, reason=why)


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 0.7, "seed": 3, **settings})


def expected_kernel(kernel, mix, steps, size=8):
    """The kernel of `linear` after so many oracle steps over the batches of X in order."""
    for step in range(steps):
        rows = slice(step * size % len(X), step * size % len(X) + size)
        plan = mix.plan(step, size)
        kernel = step_of_linear(kernel, flat(oracle.mixup(X[rows], plan.lam, plan.permutation)), Y[rows], None, plan)
    return kernel


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]


def as_numpy():
    return (X, Y), {"batch_size": 8, "shuffle": False}


def as_tf_data():
    return (tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),), {"shuffle": False}


def as_grain():
    grain = pytest.importorskip("grain.python")
    examples = grain.MapDataset.source([(x, y) for x, y in zip(X, Y, strict=True)])
    return (examples.batch(8).repeat().to_iter_dataset(),), {"steps_per_epoch": 3}


def as_py_dataset():
    return (Batches(),), {"shuffle": False}


def as_torch_loader():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return (torch.utils.data.DataLoader(data, batch_size=8),), {}


def as_generator():
    def batches():
        while True:
            yield from (Batches()[i] for i in range(3))

    return (batches(),), {"steps_per_epoch": 3}


@pytest.mark.in_turn
@pytest.mark.fast("as_numpy")
@pytest.mark.parametrize("kind", [as_numpy, as_tf_data, as_grain, as_py_dataset, as_torch_loader, as_generator])
def test_every_kind_of_data_is_mixed_by_the_same_plans(kind):
    mix, model = mixup(), linear(X.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    data, settings = kind()
    history = compiled(kmix.MixTrainer(model, mixer=mix), metrics=["accuracy"]).fit(
        *data, epochs=2, verbose=0, validation_data=(X, Y), **settings
    )
    np.testing.assert_allclose(model.get_weights()[0], expected_kernel(kernel, mix, 6), atol=1e-5)
    predicted = np.argmax(model.predict(X, verbose=0), axis=1)
    assert history.history["val_accuracy"][-1] == pytest.approx(np.mean(predicted == Y))


@pytest.mark.fast("*steps_per_execution*")
@pytest.mark.parametrize(
    "settings",
    [
        {"run_eagerly": True},
        {"jit_compile": False},
        pytest.param({"jit_compile": True}, marks=only("tensorflow", "jax", why="PyTorch compiles with its own tools")),
        pytest.param({"steps_per_execution": 3}, marks=only("tensorflow", "jax", why="Keras refuses it on PyTorch")),
    ],
    ids=str,
)
def test_every_way_to_run_takes_the_same_steps(settings):
    mix, model = mixup(), linear(X.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    compiled(kmix.MixTrainer(model, mixer=mix), **settings).fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], expected_kernel(kernel, mix, 6), atol=1e-5)


@pytest.mark.slow
def test_gradient_accumulation_counts_batches():
    mix, model = mixup(), linear(X.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=3)
    trainer = compiled(kmix.MixTrainer(model, mixer=mix), optimizer=optimizer)
    trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    steps = []
    for step in range(3):
        rows, plan = slice(step * 8, step * 8 + 8), mix.plan(step, 8)
        mixed = flat(oracle.mixup(X[rows], plan.lam, plan.permutation))
        steps.append(step_of_linear(kernel, mixed, Y[rows], None, plan) - kernel)
    np.testing.assert_allclose(model.get_weights()[0], kernel + np.mean(steps, axis=0), atol=1e-5)


@pytest.mark.fast("mixed_bfloat16")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_keeps_the_labels_in_float32(policy):
    seen = []

    class Loss(kmix.losses.SoftLabelCrossentropy):
        def call(self, y_true, y_pred):
            seen.append((keras.backend.standardize_dtype(y_true.dtype), keras.backend.standardize_dtype(y_pred.dtype)))
            return super().call(y_true, y_pred)

    keras.config.set_dtype_policy(policy)
    try:
        mix, model = mixup(), linear(X.shape[1:])
        kernel = model.get_weights()[0].astype("float64")
        trainer = compiled(kmix.MixTrainer(model, mixer=mix), loss=Loss(from_logits=True))
        trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {labels for labels, _ in seen} == {"float32"}
    assert mix.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(model.get_weights()[0], expected_kernel(kernel, mix, 3), atol=0.05)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.mixing = kmix.EmbeddingMixup(0.7, seed=9, num_classes=CLASSES)
        self.embed = keras.layers.Embedding(9, 4, mask_zero=True)
        self.pool = keras.layers.GlobalAveragePooling1D()
        self.top = keras.layers.Dense(CLASSES)

    def call(self, tokens):
        return self.top(self.pool(self.mixing(self.embed(tokens))))


@pytest.mark.slow
def test_a_sub_classed_model_equals_the_functional_one():
    tokens = np.random.default_rng(0).integers(0, 9, (24, 5)) * (np.arange(5) < 3)
    tokens[:, 0] = 1
    model = Subclassed()
    model(tokens)
    inputs = keras.Input((5,), dtype="int32")
    layers = [keras.layers.Embedding(9, 4, mask_zero=True), kmix.EmbeddingMixup(0.7, seed=9)]
    layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(CLASSES)]
    tensor = inputs
    for layer in layers:
        tensor = layer(tensor)
    copied = keras.Model(inputs, tensor)
    copied.set_weights(model.get_weights())
    for network in (model, copied):
        compiled(kmix.MixTrainer(network)).fit(tokens, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), copied.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_model_that_is_not_built_yet():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    trainer = compiled(kmix.MixTrainer(model, mixer=mixup(num_classes=CLASSES)), metrics=["accuracy"])
    trainer.fit(X, Y, batch_size=8, verbose=0)
    assert int(trainer.step) == 3


@pytest.mark.slow
def test_a_model_of_keras_applications_unchanged():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=CLASSES)
    x = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)).astype("float32")
    trainer = kmix.MixTrainer(model, mixer=kmix.EmbeddingMixup(2.0), places=["input", "block_1_expand"])
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy(), metrics=["accuracy"])
    before = model.get_weights()
    losses = trainer.fit(x, Y[:8], batch_size=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(trainer.predict(x, verbose=0), model.predict(x, verbose=0))


def two_headed(as_dict):
    image, text = keras.Input((6, 6, 2), name="image"), keras.Input((5,), dtype="int32", name="text")
    words = kmix.EmbeddingMixup(0.7, seed=1)(keras.layers.Embedding(9, 4, mask_zero=True, name="table")(text))
    picture = kmix.MixUp(0.7, seed=1)(image)
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(picture), keras.layers.GlobalAveragePooling1D()(words)])
    kind = keras.layers.Dense(CLASSES, name="kind")(joined)
    size = keras.layers.Dense(1, name="size")(joined)
    outputs = {"kind": kind, "size": size} if as_dict else [kind, size]
    return keras.Model({"image": image, "text": text}, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("as_dict", [True, False])
def test_many_inputs_and_outputs(as_dict):
    tokens = np.random.default_rng(0).integers(1, 9, (24, 5))
    sizes, weights = numbers(24, 1), np.linspace(0.5, 2.0, 24, dtype="float32")
    model = two_headed(as_dict)
    trainer = kmix.MixTrainer(model)
    y = {"kind": Y, "size": sizes} if as_dict else [Y, sizes]
    loss = {"kind": kmix.losses.SoftLabelCrossentropy(from_logits=True), "size": "mse"}
    metrics = {"kind": ["accuracy"], "size": ["mae"]}
    if not as_dict:
        loss, metrics = list(loss.values()), list(metrics.values())
    trainer.compile(keras.optimizers.SGD(0.0), loss, metrics=metrics)
    sample_weight = {"kind": weights, "size": weights} if as_dict else [weights, weights]
    logs = trainer.fit(
        {"image": X, "text": tokens}, y, sample_weight=sample_weight, batch_size=24, shuffle=False, verbose=0
    ).history
    # No weight changed, so the loss of the step can be computed by hand: one plan for both branches and both heads.
    plan = trainer.plan(0, 24)
    picture = flat(oracle.mixup(X, plan.lam, plan.permutation))
    words = oracle.mixup(model.get_layer("table").get_weights()[0][tokens], plan.lam, plan.permutation).mean(axis=1)
    joined = np.concatenate([picture, words], axis=1)
    outputs = {name: joined @ model.get_layer(name).get_weights()[0] for name in ("kind", "size")}
    kinds, mixed_weights = oracle.weighted(SOFT, weights, plan.lam, plan.permutation)
    wanted, _ = oracle.weighted(sizes, weights, plan.lam, plan.permutation)
    kind_loss = np.mean(mixed_weights * oracle.crossentropy(kinds, oracle.softmax(outputs["kind"])))
    size_loss = np.mean(mixed_weights * np.mean((wanted - outputs["size"]) ** 2, axis=1))
    assert logs["loss"][0] == pytest.approx(kind_loss + size_loss, rel=1e-4)
    assert {"kind_accuracy", "size_mae"} <= set(logs)


@pytest.mark.in_turn
@pytest.mark.fast("column of ids", "regression")
@pytest.mark.parametrize(
    ("y", "loss"),
    [
        (SOFT, "categorical_crossentropy"),
        ((SOFT + np.roll(SOFT, 1, axis=1)).astype("int32"), kmix.losses.SoftLabelCrossentropy(multi_label=True)),
        (numbers(24, CLASSES), "mse"),
        (Y[:, None], "categorical_crossentropy"),
        (Y.astype("uint8"), "kl_divergence"),
    ],
    ids=["soft", "multi-hot", "regression", "column of ids", "uint8 ids"],
)
def test_kinds_of_labels(y, loss):
    mix, model = mixup(), keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(CLASSES, activation="softmax"))
    trainer = kmix.MixTrainer(model, mixer=mix)
    trainer.compile(keras.optimizers.SGD(0.0), loss)
    logged = trainer.fit(X, y, batch_size=24, shuffle=False, verbose=0).history["loss"][0]
    plan = mix.plan(0, 24)
    dense = SOFT if np.shape(y) in ((24,), (24, 1)) else y
    mixed = [oracle.mixup(a, plan.lam, plan.permutation).astype("float32") for a in (X, dense)]
    predicted = model.predict(mixed[0], batch_size=24, verbose=0)
    assert logged == pytest.approx(float(keras.ops.mean(keras.losses.get(loss)(mixed[1], predicted))), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2.0, 24, dtype="float32")], ids=["", "weighted"])
def test_pairs_train_as_dense_labels_do(weights):
    models = [linear(X.shape[1:]) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    trainers = [
        compiled(kmix.MixTrainer(models[0], mixer=mixup()), metrics=[kmix.metrics.SoftLabelAccuracy("accuracy")]),
        compiled(
            kmix.MixTrainer(models[1], mixer=mixup(target=kmix.targets.LabelPairs(CLASSES))), metrics=["accuracy"]
        ),
    ]
    logs = [
        trainer.fit(X, Y, sample_weight=weights, batch_size=8, validation_data=(X, Y), verbose=0).history
        for trainer in trainers
        if keras.utils.set_random_seed(1) is None
    ]
    for name, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][name], rtol=1e-5)
    np.testing.assert_allclose(models[0].get_weights()[0], models[1].get_weights()[0], atol=1e-6)
    assert trainers[1].evaluate(X, SOFT, verbose=0) == pytest.approx(trainers[1].evaluate(X, Y, verbose=0))


def test_class_weight_becomes_a_mixed_sample_weight():
    class_weight = {0: 0.2, 1: 1.0, 2: 2.0, 3: 3.0}
    weights = np.array([class_weight[label] for label in Y], "float32")
    kernels = []
    for settings in ({"class_weight": class_weight}, {"sample_weight": weights}):
        model = linear(X.shape[1:])
        model.set_weights([np.ones((72, CLASSES))])
        compiled(kmix.MixTrainer(model, mixer=mixup())).fit(X, Y, batch_size=8, shuffle=False, verbose=0, **settings)
        kernels.append(model.get_weights()[0])
    np.testing.assert_allclose(*kernels, atol=1e-6)


def deep(dropout=0.0):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    tensor = keras.layers.Flatten()(inputs)
    for width in (16, 8):
        tensor = keras.layers.Dense(width, activation="relu", name=f"dense_{width}")(tensor)
        tensor = keras.layers.BatchNormalization()(tensor)
        tensor = keras.layers.Dropout(dropout, seed=width)(tensor)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="top")(tensor))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: kmix.MixTrainer(model, mixer=kmix.MixUp(0.0)),
        lambda model: kmix.MixTrainer(model, mixer=kmix.EmbeddingMixup(0.0), places=["input", "dense_16", "top"]),
    ],
    ids=["MixUp", "places"],
)
def test_alpha_zero_is_plain_training(wrap):
    plain, model = deep(dropout=0.3), deep(dropout=0.3)
    trainer = compiled(wrap(model), metrics=["accuracy"])
    compiled(plain, metrics=["categorical_accuracy"])
    logs = [
        network.fit(X, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
        for network, y in ((plain, SOFT), (trainer, Y))
    ]
    np.testing.assert_allclose(*logs, rtol=1e-5)
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_evaluate_and_predict_are_those_of_the_bare_model():
    inputs = keras.Input((6, 6, 2))
    tensor = keras.layers.Dense(8)(keras.layers.Flatten()(kmix.MixUp(1.0)(inputs)))
    tensor = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(tensor))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(tensor))
    trainer = compiled(kmix.MixTrainer(model), metrics=["accuracy"])
    trainer.fit(X, Y, batch_size=8, verbose=0)
    np.testing.assert_array_equal(
        trainer.predict(X, batch_size=8, verbose=0), model.predict(X, batch_size=8, verbose=0)
    )
    compiled(model, metrics=[kmix.metrics.SoftLabelAccuracy("accuracy")])
    of_ids, of_soft = (
        [network.evaluate(X, y, batch_size=8, return_dict=True, verbose=0) for network in (trainer, model)]
        for y in (Y, SOFT)
    )
    assert of_ids[0] == of_ids[1]
    assert of_soft[0] == of_soft[1]
    # Two programs: XLA may round their sums differently.
    assert of_ids[0] == pytest.approx(of_soft[0], rel=1e-6)
    assert int(trainer.step) == 3


class Each(keras.callbacks.Callback):
    """Calls a function before each batch."""

    def __init__(self, function):
        super().__init__()
        self.function, self.number = function, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.function(self.number)
        self.number += 1


class Traces(keras.layers.Layer):
    count = 0

    def call(self, x):
        Traces.count += 1
        return x


@pytest.mark.fast("callback")
@pytest.mark.parametrize("unit", ["epoch", "batch", "callback"])
def test_alpha_takes_effect_on_the_very_next_step_without_a_new_trace(unit):
    alphas = {"epoch": [0.1] * 3 + [2.0] * 3, "batch": [0.1, 2.0, 0.0, 5.0, 0.3, 1.0]}.get(
        unit, [0.2, 0.2, 0.2, 3.0, 3.0, 3.0]
    )
    mix = mixup(alpha=0.2)
    model = keras.Sequential([keras.Input((6, 6, 2)), Traces(), keras.layers.Flatten()])
    model.add(keras.layers.Dense(CLASSES, use_bias=False))
    kernel = model.get_weights()[0].astype("float64")
    trainer = compiled(kmix.MixTrainer(model, mixer=mix))
    if unit == "callback":

        def change(number):
            assert trainer.alpha == mix.alpha == alphas[max(number - 1, 0)]
            if number == 3:
                trainer.alpha = 3.0
                assert int(trainer.step) == 3

        callback = Each(change)
    else:
        steps = alphas if unit == "batch" else alphas[::3]
        callback = kmix.callbacks.AlphaScheduler(trainer, lambda step: steps[step], unit=unit)
    Traces.count = 0
    trainer.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    if BACKEND != "torch":  # which traces nothing, ever
        first = Traces.count
        trainer.alpha = 0.9
        trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        assert Traces.count == first <= 3
        alphas = [*alphas, 0.9, 0.9, 0.9]
    for step, alpha in enumerate(alphas):
        rows, plan = slice(step % 3 * 8, step % 3 * 8 + 8), mixup(alpha=alpha).plan(step, 8)
        kernel = step_of_linear(kernel, flat(oracle.mixup(X[rows], plan.lam, plan.permutation)), Y[rows], None, plan)
    np.testing.assert_allclose(model.get_weights()[0], kernel, atol=1e-5)


@pytest.mark.fast("kmix")
@pytest.mark.parametrize(
    "schedule",
    [
        kmix.schedules.Linear(0.0, 2.0, 5),
        keras.optimizers.schedules.PolynomialDecay(2.0, 5, 0.1),
        lambda step: 0.1 + 0.2 * step,
    ],
    ids=["kmix", "keras", "function"],
)
def test_a_schedule_follows_the_step(schedule):
    mix, model = mixup(alpha=schedule), linear(X.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    trainer = compiled(kmix.MixTrainer(model, mixer=mix))
    assert trainer.alpha is schedule
    trainer.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert not np.array_equal(mix.plan(1, 8).lam, mixup(alpha=2.0).plan(1, 8).lam)
    np.testing.assert_allclose(model.get_weights()[0], expected_kernel(kernel, mix, 6), atol=1e-5)


@pytest.mark.slow
def test_a_seed_of_the_trainer_goes_before_that_of_the_layer():
    kernels = []
    for mix, seed in ((mixup(seed=1), 5), (mixup(seed=5), None), (mixup(seed=1), None)):
        model = linear(X.shape[1:])
        model.set_weights([np.ones((72, CLASSES))])
        trainer = compiled(kmix.MixTrainer(model, mixer=mix, seed=seed))
        trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        kernels.append(model.get_weights()[0])
        assert np.array_equal(trainer.plan(0, 8).lam, mixup(seed=seed or mix.seed).plan(0, 8).lam)
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


@pytest.mark.slow
def test_masks_of_the_partners_are_united_for_the_losses_of_positions_too():
    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0]] * 2)
    targets = np.random.default_rng(0).uniform(size=(4, 4, 3)).astype("float32")
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True, name="embed")(inputs)
    mix = kmix.EmbeddingMixup(1.0, seed=5)
    for place in (True, False):
        tensor = embedded if place else mix(embedded)
        model = keras.Model(inputs, keras.layers.Dense(3)(tensor))
        ways = {"mixer": mix, "places": ["embed"]} if place else {}
        trainer = kmix.MixTrainer(model, target=kmix.targets.Labels(any_shape=True), **ways)
        trainer.compile(keras.optimizers.SGD(0.0), "mse")
        logged = trainer.fit(tokens, targets, batch_size=4, shuffle=False, verbose=0).history["loss"][0]
        plan, (table, kernel, bias) = mix.plan(0, 4), model.get_weights()
        mask = tokens != 0
        mask = mask | mask[plan.permutation]
        outputs = oracle.mixup(table[tokens], plan.lam, plan.permutation) @ kernel + bias
        errors = np.mean((outputs - oracle.mixup(targets, plan.lam, plan.permutation)) ** 2, axis=-1)
        assert logged == pytest.approx(errors[mask].sum() / mask.sum(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("explicit", [True, False])
def test_places_mix_masks_that_are_passed_by_hand(explicit):
    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 0, 0, 0], [7, 8, 1, 2]])
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=not explicit, name="embed")(inputs)
    pool = keras.layers.GlobalAveragePooling1D(name="pool")
    pooled = pool(embedded, mask=keras.ops.not_equal(inputs, 0)) if explicit else pool(embedded)
    model = keras.Model(inputs, keras.layers.Dense(3, name="top")(pooled))
    mix = kmix.EmbeddingMixup(1.0, seed=5)
    trainer = kmix.MixTrainer(model, mixer=mix, places=["embed", "pool"])
    trainer.compile(keras.optimizers.SGD(0.0), "mse")
    targets = np.random.default_rng(0).uniform(size=(4, 3)).astype("float32")
    places = set()
    for step in range(4):
        logged = trainer.fit(tokens, targets, batch_size=4, shuffle=False, verbose=0).history["loss"][0]
        plan, (table, kernel, bias) = trainer.plan(step, 4), model.get_weights()
        mask, embedding = tokens != 0, table[tokens]
        if plan.place == 0:
            mask, embedding = mask | mask[plan.permutation], oracle.mixup(embedding, plan.lam, plan.permutation)
        pooled = np.einsum("bt,btd->bd", mask / mask.sum(axis=1, keepdims=True), embedding)
        pooled = oracle.mixup(pooled, plan.lam, plan.permutation) if plan.place == 1 else pooled
        errors = (pooled @ kernel + bias - oracle.mixup(targets, plan.lam, plan.permutation)) ** 2
        assert logged == pytest.approx(errors.mean(), rel=1e-4)
        places.add(int(plan.place))
    assert places == {0, 1}


@pytest.mark.slow
def test_labels_that_are_no_class_raise_or_make_the_loss_nan():
    trainer = compiled(kmix.MixTrainer(linear(X.shape[1:]), mixer=mixup()), jit_compile=BACKEND != "torch")
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="num_classes=4"):
            trainer.fit(X, Y + CLASSES, batch_size=8, verbose=0)
    else:
        assert np.isnan(trainer.fit(X, Y + CLASSES, batch_size=8, verbose=0).history["loss"][0])


# Saving and resuming. Without Dropout, since Keras does not save the state of its seed generators.

RISING = kmix.schedules.Linear(0.0, 1.0, 9)
MODELS = {
    "mixer": lambda: kmix.MixTrainer(deep(), mixer=kmix.RandomChoice([mixup(), kmix.CutMix(seed=4)], seed=5), seed=11),
    "places": lambda: kmix.MixTrainer(
        deep(), mixer=kmix.EmbeddingMixup(RISING, seed=1), places=["input", "dense_16", "top"]
    ),
    "placed": lambda: kmix.MixTrainer(placed(), num_classes=CLASSES),
}


def placed():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    pooled = keras.layers.GlobalAveragePooling1D()(kmix.EmbeddingMixup(0.7, seed=1, name="mixing")(embedded))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(pooled))


def inputs_of(way):
    return np.abs(X[:, 0, :, 0] * 9).astype("int32") % 9 if way == "placed" else X


RESUME = """
import sys; sys.path.insert(0, {tests!r})
import keras, kmix, numpy as np
import test_trainer_fit as t
trainer = keras.saving.load_model({path!r})
trainer.fit(t.inputs_of({way!r}), t.Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
np.savez({path!r} + ".npz", *trainer.get_weights(), *trainer.plan(12, 8, spatial_shape=(6, 6))[:2], trainer.evaluate(
    t.inputs_of({way!r}), t.Y, verbose=0))
"""


def run(code):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("way", MODELS)
def test_training_goes_on_in_a_new_process(way, tmp_path):
    x = inputs_of(way)
    trainer = compiled(MODELS[way](), optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])
    trainer.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    if way != "places":
        trainer.alpha = 0.55
    path = str(tmp_path / "trainer.keras")
    trainer.save(path)
    trainer.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    run(RESUME.format(tests=os.path.dirname(__file__), path=path, way=way))
    resumed = list(np.load(path + ".npz").values())
    uninterrupted = [
        *trainer.get_weights(),
        *trainer.plan(12, 8, spatial_shape=(6, 6))[:2],
        trainer.evaluate(x, Y, verbose=0),
    ]
    for a, b in zip(resumed, uninterrupted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    loaded = keras.saving.load_model(path)
    assert int(loaded.step) == 6
    if way != "places":
        assert loaded.alpha == pytest.approx(0.55)


EXPORTED = """
import sys
sys.modules["kmix"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load({path!r})
x = np.load({path!r} + ".npy")
np.save({path!r} + "_out.npy", loaded.serve(x).numpy())
"""


@pytest.mark.slow
@only("tensorflow", "jax", why="Keras exports no SavedModel from PyTorch")
@pytest.mark.parametrize("way", ["mixer", "places", "placed"])
def test_the_exported_model_mixes_nothing_and_needs_no_kmix(way, tmp_path):
    path = str(tmp_path / "exported")
    trainer, x = compiled(MODELS[way]()), inputs_of(way)
    trainer.fit(x, Y, batch_size=8, verbose=0)
    trainer.export(path, verbose=False)
    np.save(path + ".npy", x)
    run(EXPORTED.format(path=path))
    expected = trainer.model.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(path + "_out.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_model_alone_is_saved_with_its_mixing_layer_as_an_identity(tmp_path):
    trainer = compiled(MODELS["placed"]())
    trainer.fit(inputs_of("placed"), Y, batch_size=8, verbose=0)
    trainer.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("mixing").alpha == 0.7
    for model in (loaded, keras.models.clone_model(loaded)):
        model.set_weights(trainer.model.get_weights())
        np.testing.assert_array_equal(
            model.predict(inputs_of("placed"), verbose=0), trainer.predict(inputs_of("placed"), verbose=0)
        )
    again = compiled(kmix.MixTrainer(loaded))
    assert np.isfinite(again.fit(inputs_of("placed"), Y, verbose=0).history["loss"][0])


@pytest.mark.parametrize("way", MODELS)
def test_config_survives_json(way):
    trainer = MODELS[way]()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(trainer)))
    copy = keras.saving.deserialize_keras_object(serialized)
    assert json.dumps(copy.get_config()) == json.dumps(trainer.get_config())


def test_a_layer_outlives_its_trainers():
    mix = mixup(alpha=0.2)
    for alpha in (0.3, 0.4):
        trainer = kmix.MixTrainer(linear(X.shape[1:]), mixer=mix)
        trainer.alpha = alpha
        assert mix.alpha == alpha
    second = kmix.MixTrainer(linear(X.shape[1:]), mixer=mix)
    mix.alpha = 0.6
    assert trainer.alpha == second.alpha == 0.6
    del trainer, second
    assert mix.alpha == 0.6
