"""Numbers that float32 cannot hold. TensorFlow and XLA take those below its normal range for 0, so all of kmix does."""

import numpy as np
import oracle
import pytest
from helpers import CODE_PATHS, at_step

import kmix
from kmix.pairing import SimilarLabels
from kmix.plan import sample_audio_mix, sample_mixup

SMALLEST = np.finfo("float32").smallest_normal
N = 64


def mixup(**settings):
    return kmix.MixUp(0.02, seed=1, **settings)


def batch():
    generator = np.random.default_rng(0)
    return generator.random((N, 3), dtype="float32"), np.eye(4, dtype="float32")[generator.integers(4, size=N)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "sample", [sample_mixup, sample_audio_mix, lambda *args, **kwargs: sample_audio_mix(*args, num_sources=4, **kwargs)]
)
def test_no_share_is_below_the_normal_range(sample, half):
    plan = sample(1, 0, 0.02, 4096, lam_at_least_half=half)
    shares = np.stack([part.share for part in plan.parts()])
    assert np.mean(shares == 0) > 0.1
    assert np.min(shares[shares > 0]) >= SMALLEST
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("path", CODE_PATHS)
def test_tags_of_a_sample_that_has_no_share(path):
    x, y = batch()
    for step in range(8, 12):
        plan = mixup().plan(step, N)
        enters = plan.lam > 0
        assert 0 < np.sum(~enters) < N / 2
        expected = np.where(enters[:, None], np.maximum(y, y[plan.permutation]), y[plan.permutation])
        expected[plan.lam == 1] = y[plan.lam == 1]
        np.testing.assert_array_equal(at_step(path, mixup(target="union"), step, (x, y))[1], expected)


@pytest.mark.parametrize("path", CODE_PATHS)
@pytest.mark.parametrize("layer", [mixup(), kmix.AudioMix(0.02, num_sources=3, seed=1)])
def test_labels_whose_weights_vanish(path, layer):
    """Where float32 cannot hold the mixed weight, the shares alone count."""
    x, y = batch()
    w = np.where(np.arange(N) % 2, 1e-30, 0).astype("float32")
    plan = layer.plan(8, N)
    shares = np.stack([part.share for part in plan.parts()]).astype("float64")
    sources = np.stack([part.source for part in plan.parts()])
    weights = shares * w[sources]
    total = weights.sum(axis=0)
    lost = total < SMALLEST
    assert np.any(lost & (total > 0))
    counts = np.where(lost, shares, weights / np.where(lost, 1, total))
    mixed = at_step(path, layer, 8, (x, y, w))
    np.testing.assert_allclose(mixed[1], np.einsum("sb,sbc->bc", counts, y[sources]), atol=1e-5)
    np.testing.assert_allclose(mixed[2], total, atol=1e-6 * w.max(), rtol=0)


@pytest.mark.parametrize("path", CODE_PATHS)
@pytest.mark.parametrize("layer", [kmix.MixUp, kmix.AudioMix])
@pytest.mark.parametrize("alpha", [1e-39, 1e-40])
def test_such_an_alpha_is_0(path, layer, alpha):
    x, y = batch()
    for given, mixed in zip((x, y), at_step(path, layer(alpha, seed=1), 0, (x, y)), strict=True):
        np.testing.assert_array_equal(mixed, given)


@pytest.mark.parametrize("path", CODE_PATHS)
def test_such_numbers_are_padding_of_waves(path):
    x, y = np.random.default_rng(1).normal(size=(N, 40)).astype("float32"), batch()[1]
    x[::2, 20:] = 0
    near = np.where(x == 0, np.float32(1e-39), x)
    layer = kmix.AudioMix(equal_levels=True, seed=1)
    np.testing.assert_allclose(at_step(path, layer, 0, (near, y))[0], layer.at_step(0, (x, y))[0], atol=1e-5)


@pytest.mark.parametrize("path", CODE_PATHS)
@pytest.mark.parametrize("power", [-100, -60, 4, 60, 100])
def test_similar_labels_of_any_size(path, power):
    """The bandwidth counts in standard deviations, so the unit of the labels does not matter."""
    x, y = batch()[0], np.random.default_rng(2).normal(size=(N, 2)).astype("float32")
    layer, unit = kmix.MixUp(1.0, pairing=SimilarLabels(0.1), seed=1), np.array([1, 2.0**power], "float32")
    mixed = layer.at_step(0, (x, y))
    scaled = at_step(path, layer, 0, (x, y * unit))
    np.testing.assert_allclose(scaled[0], mixed[0], atol=1e-6)
    np.testing.assert_allclose(scaled[1] / unit, mixed[1], atol=1e-6)


@pytest.mark.parametrize("path", CODE_PATHS)
@pytest.mark.parametrize("pairing", ["same_labels", "different_labels"])
def test_such_numbers_are_no_class(path, pairing):
    """A sigmoid in float32 gives 6e-39 at -88."""
    x, tags = batch()[0], np.eye(6, dtype="float32")[np.random.default_rng(3).integers(6, size=(N, 2))].max(axis=1)
    near = np.where(tags == 0, np.float32(6e-39), tags)
    layer = kmix.MixUp(1.0, pairing=pairing, seed=1)
    np.testing.assert_allclose(at_step(path, layer, 0, (x, near))[0], layer.at_step(0, (x, tags))[0], atol=1e-6)


@pytest.mark.parametrize("path", CODE_PATHS)
def test_a_wave_whose_squares_vanish_is_silent(path):
    x, y = batch()
    x[::2] *= 1e-21
    layer = kmix.AudioMix(equal_levels=True, seed=1)
    plan = layer.plan(0, N)
    heard = (np.arange(N) % 2 == 1) & (plan.permutation % 2 == 1)
    assert 0 < np.sum(heard) < N / 2
    mixed_x, mixed_y = at_step(path, layer, 0, (x, y))
    np.testing.assert_array_equal(mixed_x[~heard], x[~heard])
    np.testing.assert_array_equal(mixed_y[~heard], y[~heard])
    expected = oracle.mixup(y, plan.lam, plan.permutation)
    np.testing.assert_allclose(mixed_y[heard], expected[heard], atol=1e-6)
