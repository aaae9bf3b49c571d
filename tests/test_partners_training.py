"""Partners by label and clean samples in a training step match NumPy."""

import keras
import numpy as np
import oracle
import pytest
import steps
from helpers import raises
from steps import numbers

import kmix

N = 8
every_way = pytest.mark.parametrize("way", steps.WAYS)


@pytest.mark.in_turn
@pytest.mark.slow
@every_way
@pytest.mark.parametrize("weighted", [False, True])
def test_clean_samples_beside_the_mixed_ones(way, weighted):
    trainer, (x, y, w) = steps.trainer_of(way, include_clean=True), steps.batch(N)
    w = w if weighted else None
    expected = steps.weights_of(trainer)
    history = steps.fit(trainer, x, y, w)
    twice = np.tile(x, (2, 1)), np.tile(y, 2), None if w is None else np.tile(w, 2)
    for number in range(4):
        expected, accuracy = steps.step(way, expected, *twice, steps.with_clean(trainer.plan(number, N)))
        assert history["accuracy"][number] == pytest.approx(accuracy)
    steps.assert_close(steps.weights_of(trainer), expected)
    # Inference sees the bare batch.
    assert trainer.predict(x, verbose=0).shape == (N, 4)
    assert trainer.evaluate(x, y, verbose=0, return_dict=True).keys() == {"loss", "accuracy"}


LAYERS = {
    "mixer": lambda **settings: ([], {"mixer": kmix.MixUp(0.8, seed=3, **settings)}),
    "placed": lambda **settings: ([kmix.EmbeddingMixup(0.8, seed=5, **settings)], {}),
    "places": lambda **settings: ([], {"mixer": kmix.MixUp(0.8, seed=3, **settings), "places": ["input", "hidden"]}),
}


def regression(way, *, trainer_settings=(), outputs=1, **settings):
    """A trainer of a linear model, through which a blend passes unchanged, and that model."""
    placed, ways = LAYERS[way](**settings)
    layers = [keras.Input((5,)), keras.layers.Dense(4, name="hidden"), *placed, keras.layers.Dense(outputs)]
    trainer = kmix.MixTrainer(keras.Sequential(layers), **ways, **dict(trainer_settings))
    trainer.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=keras.backend.backend() != "torch")
    return trainer


def losses_of(trainer, x, y, w, plan, clean=False):
    """The mean squared error of a mixed batch."""
    plan = steps.with_clean(plan) if clean else plan
    x, y, w = (np.concatenate([part, part]) if clean else part for part in (x, y, w))
    labels, weights = oracle.weighted(y, w, plan.lam, plan.permutation)
    predicted = trainer.model.predict(oracle.mixup(x, *plan[:2]).astype("float32"), verbose=0)
    return np.mean(weights * np.mean(np.square(labels - predicted), axis=-1))


@pytest.mark.in_turn
@pytest.mark.slow
@every_way
@pytest.mark.parametrize("clean", [False, True])
def test_partners_by_label(way, clean):
    trainer = regression(way, pairing=kmix.pairing.SimilarLabels(0.3, allow_self=False), include_clean=clean)
    x, y, w = numbers(16, 5), numbers(16, 1, seed=1), np.linspace(0.5, 2, 16, dtype="float32")
    plans = [trainer.plan(step, 16, targets=y) for step in range(2)]
    assert all(len(set(plan.permutation)) < 16 and (plan.permutation != np.arange(16)).all() for plan in plans)
    assert not np.array_equal(plans[0].permutation, plans[1].permutation)
    logged = trainer.fit(x, y, sample_weight=w, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert logged == pytest.approx([losses_of(trainer, x, y, w, plan, clean) for plan in plans], rel=1e-4)


@pytest.mark.slow
def test_one_of_several_labels_counts():
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(size, name=name)(inputs) for name, size in (("age", 1), ("grade", 2))}
    mixer = kmix.MixUp(seed=1, pairing=kmix.pairing.SimilarLabels(label="age"))
    trainer = kmix.MixTrainer(keras.Model(inputs, outputs), mixer)
    trainer.compile(keras.optimizers.SGD(0.0), {"age": "mse", "grade": "mse"})
    x, y = numbers(16, 5), {"age": numbers(16, 1, seed=1), "grade": numbers(16, 2, seed=2)}
    logged = trainer.fit(x, y, batch_size=16, shuffle=False, verbose=0).history["loss"][0]
    plan = trainer.plan(0, 16, targets=y)
    predicted = trainer.model.predict(oracle.mixup(x, *plan[:2]).astype("float32"), verbose=0)
    expected = sum(np.mean(np.square(oracle.mixup(y[name], *plan[:2]) - predicted[name])) for name in y)
    assert logged == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("within", [None, "batch", "shard"])
def test_within_is_saved_and_one_device_is_one_shard(within, tmp_path):
    trainer = regression("mixer", trainer_settings={"within": within})
    trainer.save(tmp_path / "trainer.keras")
    copy = keras.saving.load_model(tmp_path / "trainer.keras")
    assert copy.within == trainer.within == within
    np.testing.assert_array_equal(copy.plan(0, 8).permutation, trainer.mixer.plan(0, 8).permutation)


def test_settings_that_are_refused():
    raises(lambda: regression("mixer", trainer_settings={"within": "device"}), "`within`", "'batch', 'shard'")
    raises(
        lambda: regression("mixer", pairing="similar_labels", trainer_settings={"within": "shard"}),
        "whole batch",
        "shard",
    )
    for gone in ("pairing", "bandwidth", "pairing_by", "keep_clean", "labels", "mix", "at", "interpolate", "dtype"):
        raises(lambda gone=gone: regression("mixer", trainer_settings={gone: None}), gone, errors=TypeError)
    layers = [kmix.EmbeddingMixup(rate=0.5), kmix.EmbeddingMixup()]
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Add()([layer(x) for layer, x in zip(layers, inputs, strict=True)]))
    raises(lambda: kmix.MixTrainer(model), "agree on `rate`")
