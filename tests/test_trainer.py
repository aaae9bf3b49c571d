"""MixTrainer: one step matches the formulas of the papers in plain NumPy."""

import keras
import numpy as np
import oracle
import pytest
from keras import ops
from steps import CLASSES, RATE, compiled, mixing_matrix, numbers, output_gradient, targets
from test_losses_metrics import gradient

import kmix
from kmix import _backend
from kmix.layers.training_step import TrainingStep, run_step
from kmix.mixing import mix_inputs
from kmix.plan import sample_cutmix

BACKEND = keras.backend.backend()
WEIGHTS = np.random.default_rng(2).uniform(0.2, 3.0, 8).astype("float32")


def ids(n=8):
    return np.random.default_rng(1).integers(0, CLASSES, n)


def step_of_linear(kernel, x, y, w, plan):
    """One SGD step of `softmax(x @ kernel)` on inputs that are already mixed."""
    y, w = targets(plan, y, w)
    return kernel - RATE * x.T @ output_gradient(x @ kernel, y, w)


def flat(x):
    return x.reshape(len(x), -1).astype("float64")


@pytest.mark.parametrize("shards", [None, 2], ids=["batch", "shards"])
def test_the_gradient_of_the_blend_is_the_transposed_matrix(shards):
    if shards and BACKEND != "jax":
        pytest.skip("partners stay in a part of the batch on JAX alone")
    plan = kmix.MixUp(0.2, seed=11).plan(3, 64)
    assert (plan.lam == 1).any()
    x, upstream = numbers(64, 3, 2), numbers(64, 3, 2, seed=1)
    if shards:
        rows = plan.permutation[plan.permutation < 32], plan.permutation[plan.permutation >= 32]
        given = plan._replace(permutation=np.stack([rows[0], rows[1] - 32]))
        plan = plan._replace(permutation=np.concatenate(rows))
    else:
        given = plan
    given = given._replace(lam=ops.convert_to_tensor(given.lam), permutation=ops.convert_to_tensor(given.permutation))
    weighed = gradient(lambda upstream, x: ops.sum(mix_inputs(x, given) * upstream), ops.convert_to_tensor(upstream), x)
    np.testing.assert_allclose(flat(weighed), mixing_matrix(plan).T @ flat(upstream), atol=1e-6)


@pytest.mark.parametrize("spatial", [(13, 6), (6, 13)])
def test_a_box_is_pasted_within_the_shard(spatial):
    if BACKEND != "jax":
        pytest.skip("partners stay in a part of the batch on JAX alone")
    import jax

    def pair(words):
        return kmix.pairing.RandomPairs().partners(_backend.NUMPY, words, kmix.plan.PlanKey(3, shards=4), {})

    plan, x = sample_cutmix(1, 3, 1.0, 64, spatial, pair=pair), numbers(64, *spatial, 3)
    permutation = np.concatenate([16 * shard + rows for shard, rows in enumerate(plan.permutation)])
    mixed = jax.jit(lambda x: mix_inputs(x, plan, data_format="channels_last"))(x)
    np.testing.assert_array_equal(mixed, oracle.cutmix(x, plan.box, permutation))


def linear(shape):
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(CLASSES, use_bias=False)]
    return keras.Sequential(layers)


@pytest.mark.in_turn
@pytest.mark.fast("CutMix-sample-weighted", "MixUp-batch-weighted")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize(
    "mix",
    [
        kmix.MixUp(0.7, seed=3),
        kmix.MixUp(0.7, per="batch", rate=0.5, seed=4),
        kmix.EmbeddingMixup(0.7, seed=5),
        kmix.CutMix(1.0, seed=6, data_format="channels_last"),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{layer.per}",
)
def test_steps_on_mixed_inputs(mix, weights):
    x, y = numbers(8, 6, 6, 2), ids()
    model = linear(x.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    trainer = compiled(kmix.MixTrainer(model, mixer=mix))
    trainer.fit(x, y, sample_weight=weights, batch_size=8, epochs=3, shuffle=False, verbose=0)
    for step in range(3):
        plan = mix.plan(step, 8, spatial_shape=(6, 6))
        mixed = x if plan.box is None else oracle.cutmix(x, plan.box, plan.permutation)
        mixed = oracle.mixup(x, plan.lam, plan.permutation) if plan.box is None else mixed
        kernel = step_of_linear(kernel, flat(mixed), y, weights, plan)
    np.testing.assert_allclose(model.get_weights()[0], kernel, atol=1e-5)
    assert int(trainer.step) == 3


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
def test_a_random_choice_mixes_the_inputs(weights):
    mix = kmix.RandomChoice([kmix.MixUp(0.7, seed=1), kmix.CutMix(seed=2, data_format="channels_last")], seed=3)
    x, y = numbers(8, 6, 6, 2), ids()
    model = linear(x.shape[1:])
    kernel = model.get_weights()[0].astype("float64")
    compiled(kmix.MixTrainer(model, mixer=mix)).fit(
        x, y, sample_weight=weights, batch_size=8, epochs=6, shuffle=False, verbose=0
    )
    choices = set()
    for step in range(6):
        plan = mix.plan(step, 8, spatial_shape=(6, 6))
        choices.add(int(plan.choice))
        if plan.box is None:
            mixed = oracle.mixup(x, plan.lam, plan.permutation)
        else:
            mixed = oracle.cutmix(x, plan.box, plan.permutation)
        kernel = step_of_linear(kernel, flat(mixed), y, weights, plan)
    np.testing.assert_allclose(model.get_weights()[0], kernel, atol=1e-5)
    assert choices == {0, 1}


@pytest.mark.in_turn
@pytest.mark.fast("tokens-places-weighted")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("way", ["placed", "sequential", "places"])
@pytest.mark.parametrize("pooled", [False, True], ids=["tokens", "sentences"])
def test_steps_on_mixed_embeddings_unite_the_masks(way, pooled, weights):
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 20, (8, 7)) * (np.arange(7) < generator.integers(1, 8, 8)[:, None])
    y, mix = ids(), kmix.EmbeddingMixup(0.7, seed=7)
    between = [keras.layers.Embedding(20, 5, mask_zero=True, name="embed"), keras.layers.GlobalAveragePooling1D()]
    between[1].name = "pool"
    if way != "places":
        between.insert(2 if pooled else 1, mix)
    layers = [keras.Input((7,), dtype="int32"), *between, keras.layers.Dense(CLASSES, use_bias=False)]
    model = keras.Sequential(layers)
    if way == "placed":
        tensor = layers[0]
        for layer in layers[1:]:
            tensor = layer(tensor)
        model = keras.Model(layers[0], tensor)
    trainer = (
        kmix.MixTrainer(model, mixer=mix, places=["pool" if pooled else "embed"])
        if way == "places"
        else kmix.MixTrainer(model)
    )
    table, kernel = (w.astype("float64") for w in model.get_weights())
    compiled(trainer).fit(tokens, y, sample_weight=weights, batch_size=8, epochs=3, shuffle=False, verbose=0)
    for step in range(3):
        plan = mix.plan(step, 8)
        mixing, counts = mixing_matrix(plan), tokens != 0
        if not pooled:
            counts = counts | (counts[plan.permutation] & (plan.lam < 1)[:, None])
        share = counts / counts.sum(axis=1, keepdims=True)
        embedded = table[tokens]
        embedded = embedded if pooled else np.einsum("ij,jtd->itd", mixing, embedded)
        sentence = np.einsum("bt,btd->bd", share, embedded)
        top = mixing @ sentence if pooled else sentence
        gradient = output_gradient(top @ kernel, *targets(plan, y, weights))
        down = gradient @ kernel.T
        down = mixing.T @ down if pooled else down
        down = share[:, :, None] * down[:, None, :]
        down = down if pooled else np.einsum("ij,itd->jtd", mixing, down)
        kernel = kernel - RATE * top.T @ gradient
        np.add.at(table, tokens, -RATE * down)
    for trained, expected in zip(model.get_weights(), (table, kernel), strict=True):
        np.testing.assert_allclose(trained, expected, atol=1e-5)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("nested", [False, True])
def test_steps_of_manifold_mixup_mix_at_the_place_that_was_drawn(nested, weights):
    x, y = numbers(8, 5), ids()
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(6, activation="tanh", use_bias=False, name="hidden")
    if nested:
        inner = keras.Input((5,))
        body = keras.Model(inner, keras.layers.Identity(name="end")(hidden(inner)), name="body")
        tensor = body(inputs)
    else:
        tensor = hidden(inputs)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, use_bias=False, name="top")(tensor))
    at = ["input", "body/hidden" if nested else "hidden", "top"]
    mix = kmix.EmbeddingMixup(1.0, seed=2)
    trainer = compiled(kmix.MixTrainer(model, mixer=mix, places=at))
    assert [id(v) for v in trainer.trainable_variables] == [id(v) for v in model.trainable_variables]
    first, second = (w.astype("float64") for w in model.get_weights())
    trainer.fit(x, y, sample_weight=weights, batch_size=8, epochs=8, shuffle=False, verbose=0)
    places = set()
    for step in range(8):
        plan = trainer.plan(step, 8)
        assert np.array_equal(plan.lam, mix.plan(step, 8).lam)
        places.add(int(plan.place))
        mixings = [np.eye(8)] * 3
        mixings[plan.place] = mixing_matrix(plan)
        below = mixings[0] @ x
        squashed = np.tanh(below @ first)
        state = mixings[1] @ squashed
        gradient = mixings[2].T @ output_gradient(mixings[2] @ (state @ second), *targets(plan, y, weights))
        down = (mixings[1].T @ (gradient @ second.T)) * (1 - squashed**2)
        first, second = first - RATE * below.T @ down, second - RATE * state.T @ gradient
    assert places == {0, 1, 2}
    for trained, expected in zip(model.get_weights(), (first, second), strict=True):
        np.testing.assert_allclose(trained, expected, atol=1e-5)


class MeanOverMask(keras.layers.Layer):
    def compute_mask(self, *arguments):
        return None

    def call(self, x, mask):
        mask = ops.expand_dims(ops.cast(mask, "float32"), -1)
        return ops.sum(x * mask, axis=1) / ops.sum(mask, axis=1)


@pytest.mark.fast("keyword")
@pytest.mark.parametrize("way", ["Keras", "keyword", "position"])
def test_masks_from_before_a_place_with_several_outputs_are_united(way):
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 6, 8)
    tokens = (generator.integers(1, 9, (8, 5)) * (np.arange(5) < counts[:, None])).astype("int32")
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    states, last, _ = keras.layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(embedded)
    mask = ops.not_equal(inputs, 0)
    if way == "Keras":
        pooled = keras.layers.GlobalAveragePooling1D()(states)
    else:
        pooled = MeanOverMask()(states, mask=mask) if way == "keyword" else MeanOverMask()(states, mask)
    trainer = kmix.MixTrainer(keras.Model(inputs, [pooled, last]), mixer=kmix.EmbeddingMixup(1.0), places=["lstm"])
    plan = kmix.EmbeddingMixup(1.0, seed=1).plan(0, 8)._replace(place=0)
    with run_step(TrainingStep(plan, places=1)):
        mixed = [ops.convert_to_numpy(output) for output in trainer(tokens, training=True)]
    states, last = keras.Model(inputs, [states, last]).predict(tokens, verbose=0)
    united = ((tokens > 0) | (tokens > 0)[plan.permutation])[..., None]
    expected = (oracle.mixup(states, plan.lam, plan.permutation) * united).sum(axis=1) / united.sum(axis=1)
    np.testing.assert_allclose(mixed[0], expected, atol=1e-5)
    np.testing.assert_allclose(mixed[1], oracle.mixup(last, plan.lam, plan.permutation), atol=1e-5)


@pytest.mark.slow
def test_flags_are_no_masks():
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True, name="embed")(inputs)
    attended = keras.layers.MultiHeadAttention(2, 3)(embedded, embedded, use_causal_mask=True)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling1D()(attended)))
    trainer = compiled(kmix.MixTrainer(model, mixer=kmix.EmbeddingMixup(1.0), places=["embed"]))
    trainer.fit(np.random.default_rng(0).integers(1, 9, (8, 5)), ids(), verbose=0)


def test_the_state_tree_of_a_trainer_with_two_alphas_goes_round():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )
    layers = [kmix.MixUp(0.3, seed=1), kmix.CutMix(0.7, seed=1, data_format="channels_last")]
    trainer = kmix.MixTrainer(model, kmix.RandomChoice(layers, seed=1))
    trainer.compile("sgd", kmix.losses.SoftLabelCrossentropy())
    tree = trainer.get_state_tree(value_format="numpy_array")
    layers[0].alpha = layers[1].alpha = 5.0
    trainer.set_state_tree(tree)
    np.testing.assert_allclose([layer.alpha for layer in layers], [0.3, 0.7], rtol=1e-6)
