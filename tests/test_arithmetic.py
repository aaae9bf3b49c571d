"""Small functions against their formulas, where no test of a whole batch would notice a slip."""

import functools
import math

import keras
import numpy as np
import pytest
from helpers import to_numpy

import kmix
from kmix import _backend
from kmix.plan import streams
from kmix.targets import point_geometry

LABELS = {
    "numbers": np.array([0.0, 1.0, 4.0, 4.0]),
    "columns": np.array([[0.0, 10.0], [1.0, 30.0], [4.0, 20.0], [4.0, -5.0]]),
    "a constant column": np.array([[0.0, 2.0], [1.0, 2.0], [4.0, 2.0], [4.0, 2.0]]),
}


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_score_of_similar_labels_is_gaussian_in_standard_deviations(labels, bandwidth):
    y = labels.reshape(len(labels), -1)
    deviation = y.std(axis=0)
    z = (y - y.mean(axis=0)) / np.where(deviation > 0, deviation, 1) / bandwidth
    expected = -((z[:, None] - z[None]) ** 2).sum(axis=-1) / 2
    rule = kmix.pairing.SimilarLabels(bandwidth)
    score = rule.score(_backend.NUMPY, {"labels": labels.astype("float32")})
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)
    # Another precision would change a plan by an ulp, and so, now and then, a partner.
    assert score.dtype == "float32"
    assert kmix.pairing.SimilarLabels().bandwidth == 0.5


@pytest.fixture
def reserved(monkeypatch):
    """No streams are reserved but those of the owner."""
    monkeypatch.setattr(streams, "_RESERVED", {})
    assert kmix.plan.reserve("owner", 1000, 10) == 1000


@pytest.mark.parametrize(("first", "count"), [(990, 10), (1010, 10), (1010, 1), (0, 1000)])
def test_streams_may_touch(reserved, first, count):
    assert kmix.plan.reserve("other", first, count) == first
    streams.check(first, count)
    streams.check(first + count - 1, 1)
    with pytest.raises(ValueError, match="reserved"):
        streams.check(first, count + 1 if first > 1000 else 2 * count + 11)


@pytest.mark.parametrize(("first", "count"), [(990, 11), (1009, 1), (1000, 10), (1004, 2), (900, 500), (995, 16)])
def test_streams_may_not_overlap(reserved, first, count):
    with pytest.raises(ValueError, match="only one owner"):
        kmix.plan.reserve("other", first, count)
    assert kmix.plan.reserve("owner", first, count) == first


def test_16_streams_are_reserved_below_the_end(reserved):
    assert kmix.plan.reserve("last", 2**16 - 16) == 2**16 - 16
    streams.check(2**16 - 16, 16)
    for first in (2**16 - 15, 2**16):
        with pytest.raises(ValueError, match="below 65536"):
            kmix.plan.reserve("late", first)
    with pytest.raises(ValueError, match="count"):
        kmix.plan.reserve("none", 5000, 0)


def test_the_partners_of_audio_mix_follow_each_other_in_a_cycle():
    plan = kmix.plan.sample_audio_mix(seed=3, step=5, alpha=1.0, batch_size=6, num_sources=4)
    first, second, third = plan.partners
    np.testing.assert_array_equal(second, first[first])
    np.testing.assert_array_equal(third, first[second])
    np.testing.assert_array_equal(first, [4, 0, 5, 2, 3, 1])


def test_a_schedule_shows_its_arguments():
    linear = kmix.schedules.Linear(0.25, 0.5, 10)
    assert repr(linear) == "Linear(init_value=0.25, end_value=0.5, transition_steps=10, transition_begin=0)"


# What a mixer draws.

SAMPLERS = {
    "mixup": (kmix.plan.sample_mixup, {"alpha": 0.7}),
    "cutmix": (kmix.plan.sample_cutmix, {"alpha": 0.7, "spatial_shape": (8, 12)}),
    "mosaic": (kmix.plan.sample_mosaic, {"spatial_shape": (8, 12)}),
    "copy_paste": (kmix.plan.sample_copy_paste, {}),
    "audio_mix": (kmix.plan.sample_audio_mix, {"alpha": 0.7}),
    "audio_mix of many": (kmix.plan.sample_audio_mix, {"alpha": 0.7, "num_sources": (1, 4)}),
}
EVERY_SAMPLER = pytest.mark.parametrize(("sample", "settings"), SAMPLERS.values(), ids=SAMPLERS)


def assert_equal(plan, other):
    keras.tree.map_structure(np.testing.assert_array_equal, tuple(plan), tuple(other))


def assert_close(plan, other):
    """Equal up to an ulp of lam; so the boxes are those of one lam or the other."""
    np.testing.assert_allclose(plan[0], other[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(plan[1], other[1])
    if plan[2] is not None:
        assert np.abs(plan[2] - other[2]).max() <= 1


@EVERY_SAMPLER
def test_what_a_plan_is_without_arguments(sample, settings):
    plan = sample(seed=2, step=9, batch_size=7, **settings)
    assert_equal(plan, sample(seed=2, step=9, batch_size=7, rate=1.0, replica=0, first_row=0, pair=None, **settings))
    if "alpha" in settings:
        defaults = {"per": "sample", "lam_at_least_half": False}
        assert_equal(plan, sample(seed=2, step=9, batch_size=7, **defaults, **settings))
    assert all(len(part.share) == 7 for part in plan.parts())


def test_how_much_a_plan_mixes_without_arguments():
    assert len(kmix.plan.sample_audio_mix(seed=2, step=9, batch_size=7, alpha=1.0).parts()) == 2
    chosen = [kmix.plan.sample_copy_paste(seed=2, step=s, batch_size=8).region.chosen.mean() for s in range(9)]
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.01)
    draws = [kmix.plan.sample_choice(2, step, [1, 1, 1]) for step in range(30)]
    assert draws == [kmix.plan.sample_choice(2, step, [1, 1, 1], depth=1) for step in range(30)]
    assert draws != [kmix.plan.sample_choice(2, step, [1, 1, 1], depth=2) for step in range(30)]


@EVERY_SAMPLER
def test_partners_are_known_to_be_a_permutation_unless_a_pairing_draws_them(sample, settings):
    assert sample(seed=2, step=9, batch_size=7, **settings).bijective is (sample is not kmix.plan.sample_mosaic)
    drawn = sample(seed=2, step=9, batch_size=7, pair=lambda words: np.zeros(7, "int32"), **settings)
    assert drawn.bijective is False
    np.testing.assert_array_equal(drawn.permutation, 0)


def drawn_by_tensors(sample, settings, **tensors):
    """The plan for scalars in tensors, as NumPy arrays."""
    tensors = {name: keras.ops.convert_to_tensor(value, "float32") for name, value in tensors.items()}
    xp = _backend.namespace(*tensors.values())
    return to_numpy(tuple(sample(seed=2, step=9, batch_size=7, xp=xp, **tensors, **settings)))


@EVERY_SAMPLER
def test_a_rate_in_a_tensor_is_its_value(sample, settings):
    for rate in (0.0, 0.4, 1.0):
        plan = sample(seed=2, step=9, batch_size=7, rate=rate, **settings)
        assert_close(plan, drawn_by_tensors(sample, settings, rate=rate))
        assert_close(plan, sample(seed=2, step=9, batch_size=7, rate=np.array(rate), **settings))
    for rate in (-0.1, 1.001, np.nan):
        with pytest.raises(ValueError, match="rate"):
            sample(seed=2, step=9, batch_size=7, rate=rate, **settings)
        assert np.isnan(drawn_by_tensors(sample, settings, rate=rate)[0]).all()


@pytest.mark.parametrize("name", ["mixup", "cutmix", "audio_mix", "audio_mix of many"])
def test_an_alpha_in_a_tensor_is_its_value(name):
    sample, settings = SAMPLERS[name]
    settings = {key: value for key, value in settings.items() if key != "alpha"}
    for alpha in (0.0, 0.3, 8.0):
        plan = sample(seed=2, step=9, batch_size=7, alpha=alpha, **settings)
        assert_close(plan, drawn_by_tensors(sample, settings, alpha=alpha))
    assert np.isnan(drawn_by_tensors(sample, settings, alpha=-1.0)[0]).all()
    with pytest.raises(ValueError, match="alpha"):
        sample(seed=2, step=9, batch_size=7, alpha=-1.0, **settings)


@EVERY_SAMPLER
def test_a_number_of_any_type_is_its_value(sample, settings):
    draw = functools.partial(sample, seed=2, step=9, batch_size=7)
    for name in ["alpha", "rate"] if "alpha" in settings else ["rate"]:
        for value in (0, 1, np.int64(0), np.uint8(1), np.float16(0.5), np.float64(0.25)):
            assert_equal(draw(**{**settings, name: value}), draw(**{**settings, name: float(value)}))


def test_bounds_of_a_sampler_are_within():
    draw = functools.partial(kmix.plan.sample_audio_mix, seed=0, step=0, alpha=1.0, batch_size=16)
    for good in ({"snr": (-100, 100)}, {"num_sources": (8, 8)}, {"num_sources": (1, 8)}, {"num_sources": (1, 2)}):
        draw(**good)
    for bad in ({"snr": (-100.5, 0)}, {"snr": (0, 100.5)}, {"num_sources": (1, 9)}, {"num_sources": (1, 1)}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            draw(**bad)
    for bad, message in (({"per": "row"}, "`per`"), ({"lam_at_least_half": 1}, "`lam_at_least_half`")):
        with pytest.raises((ValueError, TypeError), match=message):
            draw(**bad)
    for rate in (0.0, 1.0):
        kmix.plan.sample_copy_paste(0, 0, 4, instance_rate=rate)
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match="instance_rate"):
            kmix.plan.sample_copy_paste(0, 0, 4, instance_rate=rate)


def test_numbers_of_steps_rows_and_replicas_are_bounded():
    draw = functools.partial(kmix.plan.sample_mixup, seed=0, alpha=1.0, batch_size=2)
    for good in ({"step": 2**63 - 1}, {"step": 0, "first_row": 2**63 - 1}, {"step": 0, "replica": 2**16 - 1}):
        draw(**good)
    for bad in ({"step": 2**63}, {"step": -1}, {"step": 0, "first_row": 2**63}, {"step": 0, "replica": 2**16}):
        with pytest.raises(ValueError, match=list(bad)[-1]):
            draw(**bad)
    assert_equal(draw(step=0, first_row=5), draw(step=0, first_row=2**32 + 5))
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed"):
            draw(seed=seed, step=0)


def test_probabilities_in_tensors_are_their_values():
    tensors = [keras.ops.convert_to_tensor(p, "float32") for p in (0.2, 0.5, 0.3)]
    xp = _backend.namespace(*tensors)
    for step in range(40):
        index = kmix.plan.sample_choice(1, step, tensors, xp=xp)
        assert _backend.dtype(index) == "int32"
        assert int(index) == kmix.plan.sample_choice(1, step, [0.2, 0.5, 0.3])


def test_an_axis_that_is_not_cut_is_whole():
    plan = kmix.plan.sample_cutmix(seed=1, step=0, alpha=1.0, batch_size=6, spatial_shape=(8, 12), cut=[1], rate=0.5)
    np.testing.assert_array_equal(plan.box[:, [0, 2]], [[0, 8]] * 6)
    assert (plan.lam == 1).any()


# Plans of batches in shards, and of two batches.


def mixed_by(plan, x):
    """A blend of rows `(N,)`, whose partners are counted within shards if there are any."""
    index = np.asarray(plan.permutation)
    if index.ndim == 2:
        index = (index + np.arange(len(index))[:, None] * index.shape[1]).ravel()
    return plan.lam * x + (1 - plan.lam) * x[index]


def mixed_by_parts(plan, x):
    """A blend of rows `(N,)` with any number of partners."""
    return sum(part.share * x[part.source] for part in plan.parts())


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_plan_with_clean_rows_keeps_the_first_half_of_each_shard(shards):
    rng = np.random.default_rng(shards)
    lam = rng.uniform(size=12).astype("float32")
    permutation = np.array([rng.permutation(12 // shards) for _ in range(shards)], "int32")
    plan = kmix.MixPlan(lam, permutation[0] if shards == 1 else permutation, box=np.arange(48).reshape(12, 4))
    key = kmix.plan.PlanKey(0, shards=shards)
    x, doubled = np.arange(12.0), key.join(_backend.NUMPY, np.arange(12.0), np.arange(12.0))
    clean = plan.with_clean(key)
    expected = [
        half for part in zip(*(np.split(rows, shards) for rows in (x, mixed_by(plan, x))), strict=True) for half in part
    ]
    np.testing.assert_allclose(mixed_by(clean, doubled), np.concatenate(expected), rtol=1e-6)
    boxes = [half for part in np.split(plan.box, shards) for half in (part, part)]
    np.testing.assert_array_equal(clean.box, np.concatenate(boxes))
    assert clean.lam.dtype == "float32"


def test_a_plan_of_several_partners_keeps_its_first_half():
    plan = kmix.plan.sample_audio_mix(seed=3, step=5, alpha=1.0, batch_size=6, num_sources=3)
    clean = plan.with_clean(kmix.plan.PlanKey(0))
    x = np.arange(6.0)
    both = mixed_by_parts(clean, np.tile(x, 2))
    np.testing.assert_allclose(both, [*x, *mixed_by_parts(plan, x)], rtol=1e-6)
    assert (np.concatenate([part.source[6:] for part in clean.parts()]) >= 6).all()


def test_a_plan_of_several_partners_in_groups_keeps_the_first_half_of_each():
    layer = kmix.AudioMix(1.0, num_sources=3, pairing=kmix.pairing.RandomPairs(within=3), seed=4)
    plan, x = layer.plan(5, 9), np.arange(9.0)
    clean = plan.with_clean(kmix.plan.PlanKey(5, group=3))
    expected = np.stack([x.reshape(3, 3), mixed_by_parts(plan, x).reshape(3, 3)], axis=1).ravel()
    doubled = np.repeat(x.reshape(3, 1, 3), 2, axis=1).ravel()
    np.testing.assert_allclose(mixed_by_parts(clean, doubled), expected, rtol=1e-6)
    partners = np.stack([part.source for part in clean.parts()]).reshape(3, 3, 2, 3)
    # Those of mixed samples are the copies of the second half.
    assert (partners[:, :, 1] // 3 == np.array([1, 3, 5])[:, None]).all()
    assert (partners[:, :, 0] == np.arange(18).reshape(3, 2, 3)[:, 0]).all()


def test_a_plan_with_a_second_batch_takes_all_partners_from_it():
    plan = kmix.MixUp(0.7, seed=3).plan(step=5, batch_size=6)
    x, other = np.arange(6.0), np.arange(10.0, 16.0)
    expected = [*(plan.lam * x + (1 - plan.lam) * other[plan.permutation]), *other]
    both = plan.with_second_batch()
    np.testing.assert_allclose(mixed_by(both, np.concatenate([x, other])), expected, rtol=1e-6)
    np.testing.assert_array_equal(np.sort(both.permutation), np.arange(12))
    assert both.lam.dtype == "float32"
    np.testing.assert_array_equal(both.lam[6:], 1)


def test_own_partners_within_shards_are_not_mixed():
    plan = kmix.MixPlan(np.full(6, 0.25, "float32"), np.array([[1, 0, 2], [0, 2, 1]], "int32"))
    np.testing.assert_array_equal(plan.without_own_partners().lam, [0.25, 0.25, 1, 1, 0.25, 0.25])


def test_the_parts_of_a_plan_are_counted_within_its_shards():
    plan = kmix.MixPlan(np.full(6, 0.25, "float32"), np.array([[1, 0, 2], [0, 2, 1]], "int64"))
    own, partner = plan._sources()
    np.testing.assert_array_equal(own, [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(partner, plan.permutation)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("allow_self", [True, False])
def test_partners_in_shards_follow_the_words_of_the_shard(shards, allow_self):
    words = np.random.default_rng(0).permutation(12).astype("uint32")
    key = kmix.plan.PlanKey(0, shards=shards, group=12 // shards)
    pairing = kmix.pairing.RandomPairs(within=12 // shards, allow_self=allow_self)
    drawn = pairing._draw_in_groups(_backend.NUMPY, words, key, {})
    assert drawn.shape == (shards, 12 // shards)
    for own, partners in zip(words.reshape(shards, -1), drawn, strict=True):
        order = np.argsort(own)
        cycle = dict(zip(order, np.roll(order, -1), strict=True))
        np.testing.assert_array_equal(partners, order if allow_self else [cycle[i] for i in range(len(own))])


def test_similar_labels_in_shards_draw_shard_by_shard():
    labels = np.random.default_rng(0).normal(size=(12, 1)).astype("float32")
    words = np.random.default_rng(1).integers(0, 2**32, 12, dtype="uint64").astype("uint32")
    pairing = kmix.pairing.SimilarLabels(within=4)
    targets = {"labels": labels, "constant": 3, "scalar": np.float32(2.0)}
    shards = pairing._draw_in_groups(_backend.NUMPY, words, kmix.plan.PlanKey(0, shards=3, seed=1, group=4), targets)
    groups = pairing._draw_in_groups(_backend.NUMPY, words, kmix.plan.PlanKey(0, seed=1, group=4), targets)
    assert shards.shape == (3, 4)
    np.testing.assert_array_equal(groups, np.ravel(shards + np.array([[0], [4], [8]])))
    for number, drawn in enumerate(shards):
        own = slice(4 * number, 4 * number + 4)
        key = kmix.plan.PlanKey(0, seed=1, group=4, first_row=4 * number)
        np.testing.assert_array_equal(
            drawn, pairing._draw_in_groups(_backend.NUMPY, words[own], key, {"labels": labels[own]})
        )


CLASSES_OF = {
    "class ids": np.array([0, 1, 1, 2, 0]),
    "a column of class ids": np.array([[0], [1], [1], [2], [0]]),
    "two columns": np.array([[1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], "float32"),
    "one-hot labels": np.eye(3, dtype="float32")[[0, 1, 1, 2, 0]],
}


@pytest.mark.parametrize("labels", CLASSES_OF.values(), ids=CLASSES_OF)
def test_candidates_share_a_class_or_do_not(labels):
    ids = labels.argmax(axis=1) if labels.shape[-1] in (2, 3) else labels.ravel()
    same = ids[:, None] == ids[None]
    for rule, wanted in ((kmix.pairing.SameLabels, same), (kmix.pairing.DifferentLabels, ~same)):
        score = rule().score(_backend.NUMPY, {"labels": labels})
        np.testing.assert_array_equal(np.isfinite(score), wanted)


# Schedules.

STEPS = 0, 1, 3, 5, 9, 10, 11, 15, 22, 30, 2**31 + 7

schedules = kmix.schedules
SCHEDULES = {
    "linear": (lambda: schedules.Linear(0.25, 2.0, 10), lambda s: 0.25 + 1.75 * min(s / 10, 1)),
    "cosine": (
        lambda: schedules.Cosine(0.25, 2.0, 20),
        lambda s: 2 - 1.75 * (1 + math.cos(math.pi * min(s / 20, 1))) / 2,
    ),
    "polynomial": (lambda: schedules.Polynomial(0.25, 2.0, 10), lambda s: 0.25 + 1.75 * min(s / 10, 1)),
    "polynomial that begins later": (
        lambda: schedules.Polynomial(0.25, 2.0, 10, transition_begin=5, power=3.0),
        lambda s: 2 - 1.75 * (1 - min(max(s - 5, 0) / 10, 1)) ** 3,
    ),
    "one step": (lambda: schedules.Polynomial(0.25, 2.0, 1), lambda s: 2.0 if s else 0.25),
    "piecewise": (
        lambda: schedules.Piecewise([0.1, 0.2, 0.3], [1, 10]),
        lambda s: 0.1 + 0.1 * (s >= 1) + 0.1 * (s >= 10),
    ),
    "join": (
        lambda: schedules.Join([schedules.Linear(0.0, 1.0, 10), lambda s: 0.5 + 0.0 * s, 0.125], [10, 22]),
        lambda s: s / 10 if s < 10 else 0.5 if s < 22 else 0.125,
    ),
    "constant": (lambda: schedules.Constant(0.4), lambda s: 0.4),
}


@pytest.mark.parametrize(("make", "formula"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_its_formula(make, formula):
    schedule = make()
    for step in STEPS:
        value = schedule(step)
        assert type(value) is float
        assert value == pytest.approx(formula(step), rel=1e-6, abs=1e-7)
        for dtype in ("int64", "uint32", "float32", *["int32"] * (step < 2**31)):
            value = schedule(np.array(step, dtype))
            assert _backend.dtype(value) == "float32"
            assert value == pytest.approx(formula(step), rel=1e-5, abs=1e-6)


WRONG = {
    "value": lambda: schedules.Constant(-1),
    "power": lambda: schedules.Polynomial(0, 1, 10, power=-1),
    "transition_steps": lambda: schedules.Polynomial(0, 1, 0),
    "transition_begin": lambda: schedules.Polynomial(0, 1, 10, transition_begin=-1),
    "schedules": lambda: schedules.Join([0.1, -0.2], [5]),
    "boundaries": lambda: schedules.Join([0.1, 0.2], [0]),
    "values": lambda: schedules.Piecewise([0.1, -0.2], [5]),
}


@pytest.mark.parametrize(("name", "make"), WRONG.items(), ids=WRONG)
def test_an_argument_of_a_schedule_that_is_out_of_range_is_named(name, make):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


# Points.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", point_geometry.FORMATS)
def test_points_move_with_their_pixels(name, dtype):
    height, width = 6, 11
    row, column = np.meshgrid(np.arange(6), np.arange(11), indexing="ij")
    scale = (height, width) if name.startswith("rel") else (1, 1)
    edges = [row / scale[0], column / scale[1]]
    edges = edges if name.endswith("yx") else edges[::-1]
    points = np.stack([*edges, row % 3], axis=-1).reshape(2, 3, 11, 3).astype(dtype)
    of_batch = [np.stack(each.reshape(2, 3, 11)) for each in (row, column)]
    pixels = point_geometry.pixels(_backend.NUMPY, points, name, (height, width))
    for found, expected in zip(pixels, of_batch, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == "float32"
    shift = np.array([[1, -2], [-3, 4]], "int32")
    moved = point_geometry.shifted(_backend.NUMPY, points, shift, name, (height, width))
    moves = shift[:, :, None, None] / np.reshape(scale, (2, 1, 1))
    moves = moves if name.endswith("yx") else moves[:, ::-1]
    visible = points[..., 2] > 0
    for axis in range(2):
        expected = points[..., axis] + np.where(visible, moves[:, axis], 0)
        np.testing.assert_allclose(moved[..., axis], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(moved[..., 2], points[..., 2])
    assert moved.dtype == dtype


def test_points_of_float64_keep_their_pixel():
    points = np.array([[[[5 - 1e-9, 5.0]]]])
    assert [int(edge[0, 0, 0]) for edge in point_geometry.pixels(_backend.NUMPY, points, "xy", (9, 9))] == [5, 4]
