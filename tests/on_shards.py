"""Four devices under `keras.distribution` on JAX. test_devices.py runs it in a separate process."""

import re

import keras
import numpy as np
import pytest
import steps

import kmix

N = 16


@pytest.fixture(scope="module", autouse=True)
def devices():
    names = keras.distribution.list_devices()
    assert len(names) == 4
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
    yield names
    keras.distribution.set_distribution(None)


def assert_steps(trainer, way, w, **settings):
    """Four training steps on a global batch match NumPy."""
    x, y, _ = steps.batch(N)
    expected = steps.weights_of(trainer)
    history = steps.fit(trainer, x, y, w, **settings)
    for number in range(4):
        expected, accuracy = steps.step(way, expected, x, y, w, trainer.plan(number, N))
        assert history["accuracy"][number] == pytest.approx(accuracy)
    steps.assert_close(steps.weights_of(trainer), expected)
    assert int(trainer.step) == 4


@pytest.mark.parametrize("within", ["batch", "shard", 2])
@pytest.mark.parametrize("way", steps.WAYS)
def test_steps_on_the_global_batch(way, within):
    assert_steps(steps.trainer_of(way, within=within), way, None if way == "mixer" else steps.batch(N)[2])


def test_partners_stay_within_the_shard():
    inside, across = (steps.trainer_of("mixer", within=within).plan(0, N) for within in ("shard", "batch"))
    shard = np.arange(N) // 4
    assert np.array_equal(shard[inside.permutation], shard)
    assert not np.array_equal(shard[across.permutation], shard)
    assert np.array_equal(np.sort(inside.permutation), np.arange(N))
    assert np.array_equal(inside.lam, across.lam)


def test_shards_divide_the_batch():
    with pytest.raises(ValueError, match="divisible"):
        steps.trainer_of("mixer", within="shard").plan(0, 10)


def moves(trainer, data=None):
    """What the devices send each other in a compiled training step: the kinds of messages and their shapes."""
    import jax

    def laid(array):
        return jax.device_put(array, keras.distribution.distribution().get_data_layout(array.shape).backend_layout)

    data = data or steps.batch(N)
    steps.fit(trainer, *data, steps=1)
    variables = trainer.trainable_variables, trainer.non_trainable_variables, trainer.optimizer.variables
    state = [[variable.value for variable in group] for group in (*variables, trainer.metrics_variables)]
    step = jax.jit(trainer.train_step).lower(state, tuple(map(laid, data)))
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf" = (.*) ({kinds})(?:-start)?\(", step.compile().as_text())


def test_groups_may_reach_over_devices():
    assert_steps(steps.trainer_of("mixer", within=8), "mixer", None)


def test_plans_in_groups_are_those_of_one_device():
    x, y, _ = steps.batch(N)
    trainer = steps.trainer_of("mixer", within=4)
    layer = kmix.MixUp(0.7, seed=3, num_classes=steps.CLASSES, pairing=kmix.pairing.RandomPairs(within=4))
    plan = trainer.plan(2, N)
    mixed = [layer.at_step(2, (x[i : i + 4], y[i : i + 4]), first_row=i)[0] for i in range(0, N, 4)]
    np.testing.assert_allclose(np.concatenate(mixed), steps.mixing_matrix(plan) @ x, atol=1e-6)


@pytest.mark.parametrize("within", ["shard", 2, 4])
@pytest.mark.parametrize("way", steps.WAYS)
def test_no_sample_leaves_its_device_with_shards(way, within):
    sent = moves(steps.trainer_of(way, within=within))
    # The means of the gradients and the metrics, as in plain training.
    assert {kind for _, kind in sent} == {"all-reduce"}
    assert not any(f"[{N}" in shape for shape, _ in sent)


@pytest.mark.parametrize("within", ["batch", "shard"])
@pytest.mark.parametrize("way", steps.WAYS)
def test_clean_samples_beside_the_mixed_ones(way, within):
    trainer, (x, y, w) = steps.trainer_of(way, within=within, include_clean=True), steps.batch(N)
    expected = steps.weights_of(trainer)
    steps.fit(trainer, x, y, w)
    twice = np.tile(x, (2, 1)), np.tile(y, 2), np.tile(w, 2)
    for number in range(4):
        expected, _ = steps.step(way, expected, *twice, steps.with_clean(trainer.plan(number, N)))
    steps.assert_close(steps.weights_of(trainer), expected)


@pytest.mark.parametrize("within", ["shard", 4])
@pytest.mark.parametrize("way", steps.WAYS)
def test_no_clean_sample_leaves_its_device_with_shards(way, within):
    sent = moves(steps.trainer_of(way, within=within, include_clean=True))
    assert {kind for _, kind in sent} == {"all-reduce"}
    assert not any(f"[{N}" in shape or f"[{2 * N}" in shape for shape, _ in sent)


IMAGES = steps.numbers(N, 8, 8, 3), np.arange(N) % steps.CLASSES


def on_images(mixer):
    """A compiled trainer on images, and the bare model if there is no mixer; each with the same weights."""
    keras.utils.set_random_seed(0)
    flat = [keras.layers.Flatten(), keras.layers.Dense(steps.CLASSES)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *flat])
    return steps.compiled(model if mixer is None else kmix.MixTrainer(model, mixer))


def mosaic(within, include_clean):
    pairing = kmix.pairing.RandomPairs(within=within)
    settings = {"num_classes": steps.CLASSES, "data_format": "channels_last", "seed": 3}
    return kmix.Mosaic(pairing=pairing, include_clean=include_clean, **settings)


@pytest.mark.parametrize("include_clean", [False, True])
def test_a_mosaic_in_groups(include_clean):
    layer = mosaic(4, include_clean)
    trainer, model = on_images(layer), on_images(None)
    steps.fit(trainer, *IMAGES, steps=1)
    steps.fit(model, *layer.at_step(0, IMAGES), steps=1)
    steps.assert_close(trainer.get_weights(), model.get_weights())


@pytest.mark.parametrize("include_clean", [False, True])
@pytest.mark.parametrize("within", ["shard", 4])
def test_no_image_of_a_mosaic_leaves_its_device_with_shards(within, include_clean):
    sent = moves(on_images(mosaic(within, include_clean)), IMAGES)
    assert {kind for _, kind in sent} == {"all-reduce"}
    # No more than the gradients and the metrics: in all, a fifth of the images.
    shapes = re.findall(r"\[([\d,]+)\]", "".join(shape for shape, _ in sent))
    assert sum(np.prod([int(size) for size in shape.split(",")]) for shape in shapes) < IMAGES[0].size / 3


def test_all_samples_go_to_all_devices_without_shards():
    sent = moves(steps.trainer_of("mixer", within="batch"))
    assert any(kind == "all-gather" and f"[{N},5]" in shape for shape, kind in sent)


def test_alpha_that_a_callback_sets_takes_effect():
    x, y, _ = steps.batch(N)
    trainer, alphas = steps.trainer_of("mixer", 0.1), [2.0, 0.0, 0.5]
    expected = steps.weights_of(trainer)
    scheduler = kmix.callbacks.AlphaScheduler(trainer, lambda epoch: alphas[epoch])
    assert steps.fit(trainer, x, y, steps=3, callbacks=[scheduler])["alpha"] == alphas
    for number, alpha in enumerate(alphas):
        trainer.alpha = alpha
        expected, _ = steps.step("mixer", expected, x, y, None, trainer.plan(number, N))
    steps.assert_close(steps.weights_of(trainer), expected)


@pytest.mark.parametrize("within", ["batch", "shard", 4])
def test_model_parallel(devices, within):
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts["hidden/kernel"], layouts["top/kernel"] = (None, "model"), ("model", None)
    with keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch").scope():
        trainer = steps.trainer_of("places", within=within)
        assert not trainer.model.get_layer("top").kernel.value.sharding.is_fully_replicated
        assert_steps(trainer, "places", steps.batch(N)[2])
        shard = np.arange(N) // 8
        assert np.array_equal(shard[trainer.plan(0, N).permutation], shard) == (within != "batch")
