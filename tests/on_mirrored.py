"""Two replicas of `tf.distribute.MirroredStrategy`. test_devices.py runs it in a separate process."""

import keras
import numpy as np
import oracle
import pytest
import steps

import kmix

N = 8


@pytest.fixture(scope="module", autouse=True)
def strategy():
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        yield strategy


def halves(array):
    return [None, None] if array is None else np.split(array, 2)


def mean_step(way, weights, x, y, w, plans):
    """Each replica mixes its half of the batch with its own plan, and their gradients are averaged."""
    results = [steps.step(way, weights, *half) for half in zip(halves(x), halves(y), halves(w), plans, strict=True)]
    after = [np.mean(weight, axis=0) for weight in zip(*(weights for weights, _ in results), strict=True)]
    return after, np.mean([accuracy for _, accuracy in results])


def plans(trainer, number):
    return [trainer.plan(number, N // 2, replica=replica) for replica in range(2)]


@pytest.mark.parametrize(("way", "weighted"), [("mixer", False), ("mixer", True), ("placed", True), ("places", False)])
def test_each_replica_mixes_with_its_own_plan(way, weighted):
    x, y, w = steps.batch(N)
    w = w if weighted else None
    trainer = steps.trainer_of(way)
    expected = steps.weights_of(trainer)
    history = steps.fit(trainer, x, y, w)
    for number in range(4):
        one, other = plans(trainer, number)
        assert not np.array_equal(one.lam, other.lam)
        expected, accuracy = mean_step(way, expected, x, y, w, (one, other))
        assert history["accuracy"][number] == pytest.approx(accuracy)
    steps.assert_close(steps.weights_of(trainer), expected)
    assert trainer.step.numpy() == 4


@pytest.mark.parametrize("way", steps.WAYS)
def test_groups_have_the_plan_of_the_whole_batch(way):
    x, y, w = steps.batch(N)
    trainer, alone = steps.trainer_of(way, within=4), steps.trainer_of(way, within=4)
    expected = steps.weights_of(trainer)
    steps.fit(trainer, x, y, w)
    for number in range(4):
        whole, parts = alone.plan(number, N), plans(trainer, number)
        np.testing.assert_array_equal(np.concatenate([part.lam for part in parts]), whole.lam)
        np.testing.assert_array_equal(
            np.concatenate([parts[0].permutation, parts[1].permutation + 4]), whole.permutation
        )
        expected, _ = mean_step(way, expected, x, y, w, parts)
    steps.assert_close(steps.weights_of(trainer), expected)


def test_alpha_that_a_callback_sets_takes_effect():
    x, y, _ = steps.batch(N)
    trainer, alphas = steps.trainer_of("mixer", 0.1), [2.0, 0.0, 0.5]
    expected = steps.weights_of(trainer)
    scheduler = kmix.callbacks.AlphaScheduler(trainer, lambda epoch: alphas[epoch])
    history = steps.fit(trainer, x, y, steps=3, callbacks=[scheduler])
    assert history["alpha"] == alphas
    assert trainer.alpha == 0.5
    for number, alpha in enumerate(alphas):
        trainer.alpha = alpha
        expected, _ = mean_step("mixer", expected, x, y, None, plans(trainer, number))
    steps.assert_close(steps.weights_of(trainer), expected)


def test_a_saved_trainer_evaluates_and_goes_on(tmp_path):
    x, y, w = steps.batch(N)
    trainer = steps.trainer_of("places")
    expected = steps.weights_of(trainer)
    steps.fit(trainer, x, y, steps=2)
    trainer.alpha = 0.4
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert loaded.alpha == pytest.approx(0.4)
    steps.fit(loaded, x, y, w, steps=1)
    for number in range(3):
        trainer.alpha = 0.7 if number < 2 else 0.4
        expected, _ = mean_step("places", expected, x, y, w if number == 2 else None, plans(trainer, number))
    steps.assert_close(steps.weights_of(loaded), expected)
    logits = loaded.predict(x, batch_size=N, verbose=0)
    scores = loaded.evaluate(x, y, batch_size=N, verbose=0, return_dict=True)
    loss = oracle.crossentropy(oracle.one_hot(y, steps.CLASSES), oracle.softmax(logits)).mean()
    assert scores["loss"] == pytest.approx(loss, abs=1e-5)
    assert scores["accuracy"] == np.mean(logits.argmax(axis=1) == y)
