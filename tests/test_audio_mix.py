"""AudioMix against plain NumPy: every value, share and partner, and the recipes that it is made for."""

import keras
import numpy as np
import oracle
import pytest
from contract import PROMISES, check_shares
from helpers import at_step, every_path, raises, refused, to_native, to_numpy

import kmix
from kmix.diagnostics.plan_replay import PlanReplay
from kmix.mixing import mix_inputs
from kmix.pairing import DifferentLabels, RandomPairs
from kmix.plan import sample_audio_mix
from kmix.targets import LabelPairs, Labels, SegmentationMasks

N, CLASSES = 7, 5
IDS = np.arange(N) % CLASSES
WEIGHTS = np.linspace(0.5, 2.0, N).astype("float32")
TAGS = np.eye(CLASSES, dtype="float32")[IDS]


def waves(shape=(40,), dtype="float32", n=N):
    """Waves of different levels, with silence before them as padding."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(n, *shape)) * generator.uniform(0.01, 1.0, (n, *(1,) * len(shape)))
    for i in range(n):
        x[i, :i] = 0
    return x.astype(dtype)


def audio(**settings):
    classes = {} if "target" in settings else {"num_classes": CLASSES}
    return kmix.AudioMix(**{"seed": 3, **classes, **settings})


def mixed_by_hand(layer, x, step=0, **settings):
    """The waves by the formulas, and the share of each sample of the batch in each mixed one, `(B, B)`."""
    plan = layer.plan(step, len(x), **settings)
    shares, partners = plan.shares, plan.partners
    if partners is None:
        shares, partners = np.stack([plan.lam, 1 - plan.lam]), plan.permutation[None]
    mixed, shares = oracle.audio_mix(x, shares, partners, layer.snr, layer.equal_levels, layer.constant_power)
    matrix = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        np.add.at(matrix[i], [i, *partners[:, i]], shares[:, i])
    return mixed, matrix


MAKE = {
    "two": {},
    "one lam for the batch": {"per": "batch", "num_sources": 3},
    "up to four": {"num_sources": (1, 4), "alpha": 0.3},
    "at a ratio": {"snr": (0, 20)},
    "three at ratios": {"snr": (-6, 6), "num_sources": 3},
    "ratios at constant power": {"snr": (-6, 6), "constant_power": True, "rate": 0.6},
    "equal levels": {"equal_levels": True, "num_sources": (2, 5)},
    "a weighted mean": {"constant_power": False, "lam_at_least_half": True, "num_sources": 3},
    "equal levels, a weighted mean": {"constant_power": False, "equal_levels": True},
}


@pytest.mark.fast("*numpy", "*native", "three at ratios-tfdata", "two-tfdata")
@every_path
@pytest.mark.parametrize("name", MAKE)
def test_every_value_label_and_weight(name, path):
    layer = audio(**MAKE[name])
    for step, shape in enumerate([(40,), (20, 2)]):
        x = waves(shape)
        x[3] = 0
        expected, share = mixed_by_hand(layer, x, step)
        mixed, y, w = at_step(path, layer, step, (x, IDS, WEIGHTS))
        assert mixed.dtype == y.dtype == w.dtype == "float32"
        np.testing.assert_allclose(mixed, expected, atol=2e-5)
        np.testing.assert_allclose(w, share @ WEIGHTS, rtol=1e-4)
        labels = (share * WEIGHTS) @ np.eye(CLASSES)[IDS] / (share @ WEIGHTS)[:, None]
        np.testing.assert_allclose(y, labels, atol=1e-4)


# Recipes of others.


@pytest.mark.fast("numpy", "native")
@every_path
def test_perch_adds_equal_shares_at_constant_power_and_unites_tags(path):
    """van Merrienboer et al. 2025, with equal weights: `sum x / sqrt(n)`."""
    layer, x = audio(alpha=1e9, num_sources=(1, 4), target="union"), waves()
    mixed, tags = at_step(path, layer, 0, (x, TAGS))
    plan, counts = layer.plan(0, N), []
    for i in range(N):
        sources = [part.source[i] for part in plan.parts() if part.share[i] > 0]
        counts.append(len(set(sources)))
        assert len(sources) == counts[-1]
        np.testing.assert_allclose(mixed[i], x[sources].sum(axis=0) / np.sqrt(len(sources)), atol=2e-4)
        np.testing.assert_array_equal(tags[i], TAGS[sources].max(axis=0))
    assert len(set(counts)) > 2


@pytest.mark.fast("numpy", "native")
@every_path
def test_between_class_learning(path):
    layer, x = audio(equal_levels=True, pairing=DifferentLabels()), waves()
    mixed, y = at_step(path, layer, 1, (x, IDS))
    plan = layer.plan(1, N, targets=IDS)
    for i, j in enumerate(plan.permutation):
        assert IDS[i] != IDS[j]
        r = float(plan.lam[i])
        expected = oracle.between_class(x[i].astype("float64"), x[j].astype("float64"), r)
        np.testing.assert_allclose(mixed[i], expected, atol=2e-5)
        np.testing.assert_allclose(y[i], r * TAGS[i] + (1 - r) * TAGS[j], atol=1e-5)


@pytest.mark.fast("numpy", "native")
@every_path
def test_mix_of_torch_audiomentations(path):
    layer = audio(snr=(0, 5), rate=0.5, target="union")
    # Without padding, over which theirs takes the mean.
    x = np.where(waves() == 0, np.float32(0.1), waves())
    mixed, tags = at_step(path, layer, 2, (x, TAGS))
    plan = layer.plan(2, N)
    alone = plan.lam == 1
    np.testing.assert_array_equal(mixed[alone], x[alone])
    np.testing.assert_array_equal(tags[alone], TAGS[alone])
    for i in np.flatnonzero(~alone):
        j, snr = plan.permutation[i], 20 * np.log10(plan.lam[i] / (1 - plan.lam[i]))
        assert 0 <= snr <= 5
        np.testing.assert_allclose(mixed[i], oracle.torch_audiomentations_mix(x[i], x[j], snr), atol=2e-5)
        np.testing.assert_array_equal(tags[i], np.maximum(TAGS[i], TAGS[j]))
    assert 0 < alone.sum() < N


# Plans.


def test_shares_are_a_dirichlet_draw():
    for alpha in (0.1, 1.0, 5.0):
        for sources in (2, 3, 8):
            plan = sample_audio_mix(1, 0, alpha, 40_000, num_sources=sources)
            shares = np.stack([plan.lam, 1 - plan.lam]) if sources == 2 else plan.shares
            np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
            mean, total = 1 / sources, sources * alpha
            np.testing.assert_allclose(shares.mean(axis=1), mean, atol=0.01)
            covariance = (np.eye(sources) * mean - mean**2) / (total + 1)
            np.testing.assert_allclose(np.cov(shares), covariance, atol=0.003)
            # Of the fourth order, where mere agreement of moments of the second order would show.
            fourth = np.prod([(alpha + i) / (total + i) for i in range(4)])
            np.testing.assert_allclose((shares**4).mean(axis=1), fourth, atol=0.01)


def test_how_many_sources_and_which():
    counts, drawn = [], []
    for step in range(200):
        plan = audio(num_sources=(1, 4)).plan(step, 16)
        counts.append((plan.shares > 0).sum(axis=0))
        drawn.append(plan.partners)
        for i in range(16):
            assert len({i, *plan.partners[:, i]}) == 4
        np.testing.assert_array_equal(np.sort(plan.partners), np.tile(np.arange(16), (3, 1)))
        np.testing.assert_array_equal(plan.permutation, plan.partners[0])
        np.testing.assert_array_equal(plan.lam, plan.shares[0])
    np.testing.assert_allclose(np.bincount(np.concatenate(counts), minlength=5)[1:] / 3200, 0.25, atol=0.03)
    # Each other sample is as likely as any.
    gap = (np.concatenate(drawn, axis=1) - np.tile(np.arange(16), 200)) % 16
    np.testing.assert_allclose(np.bincount(gap.ravel(), minlength=16)[1:] / gap.size, 1 / 15, atol=0.01)


def test_ratios_are_uniform_in_decibels():
    plan = sample_audio_mix(1, 0, None, 20_000, snr=(-5, 15), num_sources=3)
    decibels = 20 * np.log10(plan.shares[0] / plan.shares[1:])
    assert decibels.min() >= -5.001
    assert decibels.max() <= 15.001
    np.testing.assert_allclose(decibels.mean(axis=1), 5, atol=0.2)
    np.testing.assert_allclose(decibels.var(axis=1), 400 / 12, rtol=0.03)
    for ratio, share in ((0, 0.5), (20, 10 / 11)):
        np.testing.assert_allclose(sample_audio_mix(1, 0, None, 2, snr=(ratio, ratio)).lam, share, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_small_batch_has_fewer_partners(size):
    plan = audio(num_sources=4).plan(0, size)
    assert ((plan.shares > 0).sum(axis=0) == size).all()
    np.testing.assert_allclose(plan.shares.sum(axis=0), 1, atol=1e-6)
    x = waves(n=size)
    mixed, y = audio(num_sources=4).at_step(0, (x, IDS[:size]))
    expected, share = mixed_by_hand(audio(num_sources=4), x)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    np.testing.assert_allclose(y, share @ TAGS[:size], atol=1e-5)


def test_partners_stay_in_their_group():
    layer = audio(num_sources=3, pairing=RandomPairs(within=3))
    plan = layer.plan(4, 10)
    for i in range(10):
        for part in plan.parts():
            assert part.share[i] == 0 or part.source[i] // 3 == i // 3
    # The last one is alone.
    np.testing.assert_array_equal(plan.lam[9:], 1)
    assert (plan.shares[:, :9] > 0).all()


def test_the_sample_has_at_least_half():
    plain, half = (sample_audio_mix(1, 0, 1.0, 500, num_sources=4, lam_at_least_half=each) for each in (False, True))
    np.testing.assert_allclose(half.lam, np.maximum(plain.lam, 1 - plain.lam), atol=1e-6)
    np.testing.assert_allclose(half.shares.sum(axis=0), 1, atol=1e-5)
    proportion = [plan.shares[2] / (plan.shares[1] + plan.shares[2]) for plan in (plain, half)]
    np.testing.assert_allclose(*proportion, rtol=1e-3)


def test_the_batch_shares_one_draw():
    plan = audio(num_sources=(1, 5), per="batch").plan(1, 9)
    assert (plan.shares == plan.shares[:, :1]).all()


# Levels.


@pytest.mark.fast("numpy", "native")
@every_path
def test_silence_and_what_is_not_a_number(path):
    x = waves()
    x[2], x[5] = 0, np.nan
    layer = audio(snr=(0, 10), num_sources=3)
    mixed, y = at_step(path, layer, 0, (x, IDS))
    plan, (_, share) = layer.plan(0, N), mixed_by_hand(layer, np.nan_to_num(x, nan=1.0))
    np.testing.assert_array_equal(mixed[2], 0)
    np.testing.assert_array_equal(y[2], TAGS[2])
    np.testing.assert_allclose(y, share @ TAGS, atol=1e-5)
    hears = (plan.partners == 5).any(axis=0) | (np.arange(N) == 5)
    hears[2] = False
    assert np.isnan(mixed[hears]).all()
    assert np.isfinite(mixed[~hears]).all()
    # A silent partner leaves the wave to itself.
    mixed, y = at_step(path, audio(equal_levels=True), 0, (np.where(np.arange(N)[:, None] == 0, waves(), 0), IDS))
    np.testing.assert_allclose(mixed[0], waves()[0])
    np.testing.assert_array_equal(y, TAGS)


@pytest.mark.fast("numpy", "native")
@every_path
def test_without_levels_nothing_is_read_from_the_waves(path):
    x = np.zeros((N, 30), "float32")
    plan = audio(num_sources=3).plan(0, N)
    mixed, y = at_step(path, audio(num_sources=3), 0, (x, IDS))
    np.testing.assert_array_equal(mixed, 0)
    np.testing.assert_allclose(y, sum(part.share[:, None] * TAGS[part.source] for part in plan.parts()), atol=1e-5)


@pytest.mark.fast("*numpy", "*native")
@every_path
@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"alpha": 0.0}, {"alpha": 0.0, "num_sources": 3}], ids=str)
def test_off_is_the_identity_whatever_the_values(settings, path):
    x = waves()
    x[0], x[1, 3], x[2] = np.nan, np.inf, 0
    for more in ({}, {"equal_levels": True}):
        mixed, y = at_step(path, audio(**settings, **more), 0, (x, IDS))
        np.testing.assert_array_equal(mixed, x)
        np.testing.assert_array_equal(y, TAGS)


def test_a_partner_that_is_almost_silent_does_not_silence_the_others():
    x = waves()
    x[1] *= 1e-13
    expected, _ = mixed_by_hand(audio(equal_levels=True), x)
    mixed, _ = audio(equal_levels=True).at_step(0, (x, IDS))
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_several_waves_of_a_sample_have_one_level():
    left, right = waves(), waves((25, 2))
    both = np.concatenate([left, right.reshape(N, -1)], axis=1)
    layer = audio(equal_levels=True)
    expected, _ = mixed_by_hand(layer, both)
    for given in ({"a": left, "b": right}, to_native({"a": left, "b": right})):
        mixed, _ = layer.at_step(0, (given, IDS))
        mixed = to_numpy(mixed)
        np.testing.assert_allclose(mixed["a"], expected[:, :40], atol=1e-5)
        np.testing.assert_allclose(mixed["b"].reshape(N, -1), expected[:, 40:], atol=1e-5)


# The promises of every mixer, and the other ways of a batch.


BATCHES = {
    "two": lambda: (audio(), (waves(), IDS, WEIGHTS)),
    "ratios": lambda: (audio(snr=(0, 10), num_sources=3), (waves((20, 2)), IDS, WEIGHTS)),
    "half precision": lambda: (audio(equal_levels=True, dtype="float16"), (waves(dtype="float16"), IDS)),
    "tags": lambda: (audio(target="union", num_sources=(1, 4)), (waves(), TAGS)),
    "pairs": lambda: (audio(target=LabelPairs(CLASSES)), (waves(), IDS, WEIGHTS)),
    "class weights": lambda: (audio(target=Labels(CLASSES, class_weight={1: 3.0}), num_sources=3), (waves(), IDS)),
    "frames": lambda: (
        audio(target={"a": SegmentationMasks(3), "b": Labels(CLASSES)}, snr=(0, 5), num_sources=3),
        (waves((8, 1)), {"a": np.arange(8 * N).reshape(N, 8) % 3, "b": IDS}),
    ),
    "a choice": lambda: (
        kmix.RandomChoice(
            [audio(snr=(0, 10), num_sources=3), kmix.MixUp(num_classes=CLASSES, inputs_key="audio")], seed=4
        ),
        (waves(), IDS, WEIGHTS),
    ),
}  # fmt: skip


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHES)
def test_the_layer_keeps_the_promises_of_every_mixer(name):
    mixer, batch = BATCHES[name]()
    for promise in PROMISES:
        # A second batch brings one partner.
        if promise.__name__ != "check_second_batch" or mixer._partners == 1:
            promise(mixer, batch)


def test_the_label_is_the_share_of_the_inputs():
    check_shares(audio(constant_power=False), (waves((8, 1)), IDS))


def test_a_second_batch_may_have_one_sample():
    one, other = (waves(n=2)[i : i + 1] + 1 for i in range(2))
    mixed, y = audio(snr=(0, 0)).at_step(0, (one, IDS[:1]), partner=(other, IDS[1:2]))
    np.testing.assert_allclose(mixed, one + other * oracle.levels(one) / oracle.levels(other), rtol=1e-5)
    np.testing.assert_allclose(y[0, :2], 0.5)


def test_a_dictionary_has_its_waves_under_audio():
    batch = {"audio": waves(), "labels": IDS, "sample_weight": WEIGHTS}
    mixed = audio(num_sources=3).at_step(0, batch)
    expected = audio(num_sources=3).at_step(0, (waves(), IDS, WEIGHTS))
    for ours, theirs in zip(mixed.values(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.parametrize("name", ["two", "ratios", "tags"])
def test_compiled_pipelines_mix_alike(name):
    layer, batch = BATCHES[name]()
    for ours, expected in zip(at_step("tfdata", layer, 3, batch), layer.at_step(3, batch), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("large", [pytest.param(True, marks=pytest.mark.slow), False])
def test_plans_and_mixtures_in_a_compiled_function(large):
    """`jax.jit`, `tf.function` on its backend; PyTorch has no symbols."""
    layer = audio(snr=(0, 10), num_sources=3)
    x = waves((20_000,)) if large else waves()
    expected = layer.at_step(3, (x, IDS))
    given, step = to_native((x, IDS)), keras.ops.convert_to_tensor(3)
    mix = lambda step, batch: layer.at_step(step, batch)
    if keras.backend.backend() == "jax":
        import jax

        mix = jax.jit(mix)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        mix = tf.function(mix)
    for ours, theirs in zip(to_numpy(mix(step, given)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize(("within", "sources"), [("batch", 3), (4, 3), (4, 2)])
def test_a_training_step_is_one_on_the_mixed_batch(within, sources):
    x, ids = waves(n=8), np.arange(8) % CLASSES
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(CLASSES, kernel_initializer="zeros")])
    layer = audio(snr=(0, 10), num_sources=sources, pairing=RandomPairs(within=within))
    trainer = kmix.MixTrainer(model, layer)
    trainer.compile(keras.optimizers.SGD(1.0), kmix.losses.SoftLabelCrossentropy(from_logits=True))
    trainer.fit(x, ids, batch_size=8, shuffle=False, verbose=0)
    mixed, y = layer.at_step(0, (x, ids))
    # The gradient of the crossentropy at equal logits.
    np.testing.assert_allclose(to_numpy(model.layers[-1].kernel.value), mixed.T @ (y - 1 / CLASSES) / 8, atol=1e-5)
    with pytest.raises(ValueError, match="AudioMix has no alpha"):
        trainer.alpha = 0.1


def test_diagnostics_repeat_what_is_mixed_and_find_no_fault():
    batches = [(waves(n=32) + number, np.arange(32) % CLASSES) for number in range(8)]
    for settings in ({"num_sources": 3}, {"snr": (0, 10)}, {"equal_levels": True, "num_sources": (1, 2), "alpha": 0.5}):
        assert kmix.diagnostics.inspect(batches, mixer=audio(**settings)).warnings == []
    layer = audio(snr=(0, 10), num_sources=3)
    trainer = kmix.MixTrainer(small(), layer)
    for ours, expected in zip(PlanReplay(trainer).mix(0, batches[0])[0][:2], layer.at_step(0, batches[0]), strict=True):
        np.testing.assert_allclose(to_numpy(ours), expected, atol=1e-5)


def test_a_drawn_plan_adds_by_its_shares():
    plan, x = audio(num_sources=3).plan(0, N), waves()
    expected = sum(part.share[:, None] * x[part.source] for part in plan.parts())
    np.testing.assert_allclose(mix_inputs(x, plan), expected, atol=1e-6)
    np.testing.assert_allclose(to_numpy(mix_inputs(to_native(x), plan)), expected, atol=1e-6)
    half = plan._replace(gains=plan.shares / 2)
    np.testing.assert_allclose(mix_inputs(x, half), expected / 2, atol=1e-6)


# Refusals.


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((N, 8), "int16"), ["int16", "32768"]),
        (np.zeros((N, 8), "uint8"), ["uint8"]),
        (np.zeros((N, 8), "bool"), ["bool"]),
        (np.zeros((N, 8, 8, 1), "float32"), ["shape", "MixUp"]),
        (np.zeros(N, "float32"), ["shape"]),
    ],
    ids=["int16", "uint8", "bool", "images", "numbers"],
)
def test_what_is_no_wave_is_refused(x, words):
    refused(audio(), (x, IDS), *words, good=(waves(), IDS), every_way=x.dtype == "int16")


REFUSED = {
    "a wrong ratio": (lambda: audio(snr=(0, np.nan)), ["snr"]),
    "a large ratio": (lambda: audio(snr=(0, 400)), ["snr", "100"]),
    "a reversed ratio": (lambda: audio(snr=(5, 0)), ["snr", "higher"]),
    "three ratios": (lambda: audio(snr=(0, 1, 2)), ["snr"]),
    "one source": (lambda: audio(num_sources=1), ["num_sources", ">= 2"]),
    "nine sources": (lambda: audio(num_sources=9), ["num_sources"]),
    "no sources": (lambda: audio(num_sources=(0, 2)), ["num_sources"]),
    "always one source": (lambda: audio(num_sources=(1, 1)), ["num_sources"]),
    "reversed sources": (lambda: audio(num_sources=(3, 2)), ["num_sources"]),
    "three numbers of sources": (lambda: audio(num_sources=(1, 2, 3)), ["num_sources"]),
    "alpha and a ratio": (lambda: audio(alpha=0.4, snr=(0, 5)), ["alpha", "snr"]),
    "a schedule and a ratio": (lambda: audio(alpha=kmix.schedules.Constant(1.0), snr=(0, 5)), ["alpha", "snr"]),
    "half and a ratio": (lambda: audio(lam_at_least_half=True, snr=(0, 5)), ["lam_at_least_half", "snr"]),
    "a score": (lambda: audio(num_sources=3, pairing="different_labels"), ["pairing", "num_sources=2"]),
    "setting alpha": (lambda: setattr(audio(snr=(0, 5)), "alpha", 0.2), ["no alpha", "snr"]),
    "a second batch": (
        lambda: audio(num_sources=(1, 3)).at_step(0, (waves(), IDS), partner=(waves(), IDS)),
        ["partner="],
    ),
    "pairs of three": (lambda: audio(target=LabelPairs(9), num_sources=3), ["2 partners", "LabelPairs"]),
    "mixed losses of three": (lambda: kmix.MixTrainer(small(), audio(num_sources=3), mix_losses=True), ["several"]),
    "at places of a model": (lambda: kmix.MixTrainer(small(), audio(), places=["input"]), ["AudioMix"]),
}


def small():
    return keras.Sequential([keras.Input((40,)), keras.layers.Dense(CLASSES)])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    function, words = REFUSED[name]
    raises(function, *words, name=name)


@pytest.mark.parametrize(
    ("name", "value"), [("snr", 5), ("snr", "ab"), ("num_sources", "3"), ("num_sources", 2.5), ("equal_levels", 1),
                        ("constant_power", 0)],
)  # fmt: skip
def test_arguments_of_a_wrong_type(name, value):
    raises(lambda: audio(**{name: value}), name, errors=TypeError)


def test_alpha_belongs_to_layers_without_ratios():
    assert audio(alpha=0.4).alpha == 0.4
    assert not hasattr(audio(snr=(0, 5)), "alpha")
    assert "alpha" not in audio(snr=(0, 5)).get_config()
