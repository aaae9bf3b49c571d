"""The draws: equal on every framework, and from the correct distribution."""

import keras
import numpy as np
import pytest
from helpers import WITH_TENSORFLOW, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kmix import _backend, plan, prng

DRAWS = 100_000
ALPHAS = (1e-3, 0.01, 0.05, 0.2, 0.5, 1, 2, 8, 100, 1000)

NAMESPACES = {"numpy": _backend.NUMPY}
if WITH_TENSORFLOW:
    NAMESPACES["tensorflow"] = _backend.TENSORFLOW
if keras.backend.backend() not in NAMESPACES:
    NAMESPACES[keras.backend.backend()] = _backend.KERAS

other_frameworks = pytest.mark.parametrize("xp", list(NAMESPACES.values())[1:], ids=list(NAMESPACES)[1:])
every_framework = pytest.mark.parametrize("xp", NAMESPACES.values(), ids=NAMESPACES.keys())


def lams(xp, alpha, seed=3, step=11, size=DRAWS):
    return np.asarray(to_numpy(plan.sample_mixup(seed, step, alpha, size, xp=xp).lam))


@pytest.mark.fast("*numpy", "0.2-tensorflow", "1000-tensorflow")
@every_framework
@pytest.mark.parametrize("alpha", ALPHAS)
def test_lam_is_beta(xp, alpha):
    lam = lams(xp, alpha).astype("float64")
    assert np.isfinite(lam).all()
    edge, beta = 1e-6, stats.beta(alpha, alpha)
    inside = np.minimum(lam, 1 - lam) > edge
    below = beta.cdf(edge)
    assert stats.kstest(lam[inside], lambda x: (beta.cdf(x) - below) / (1 - 2 * below)).pvalue > 1e-3
    share = 2 * below
    sigma = np.sqrt(DRAWS * share * (1 - share))
    assert abs((~inside).sum() - DRAWS * share) <= 5 * sigma + 1


def test_the_distribution_test_can_fail():
    lam = lams(_backend.NUMPY, 0.55).astype("float64")
    assert stats.kstest(lam, stats.beta(0.5, 0.5).cdf).pvalue < 1e-3


@every_framework
def test_alpha_zero_is_one(xp):
    assert (lams(xp, 0.0) == 1).all()
    assert np.isfinite(lams(xp, 1e-38)).all()


@every_framework
@pytest.mark.parametrize("alpha", [float("nan"), -1.0, -1e-30])
def test_an_alpha_that_cannot_be_is_not_the_identity(xp, alpha):
    with pytest.raises(ValueError, match="alpha"):
        lams(xp, alpha, size=50)
    assert np.isnan(lams(xp, xp.asarray(np.array(alpha, "float32")), size=50)).all()


@every_framework
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("step", [0, 77, 2**31 + 3])
def test_integers_are_identical(xp, seed, step):
    expected = prng.bits(_backend.NUMPY, prng.key(_backend.NUMPY, seed, step), 16, 8, 1000, 3)
    kind = "uint32" if xp is _backend.KERAS and keras.backend.backend() == "jax" else "int64"
    for given_step in (step, step if xp is _backend.NUMPY else xp.asarray(np.asarray(step, kind))):
        words = prng.bits(xp, prng.key(xp, seed, given_step), 16, 8, 1000, 3)
        np.testing.assert_array_equal(to_numpy(words).astype("int64"), expected)


@pytest.mark.fast("0.01-*", "1-*", "1000-*")
@other_frameworks
@pytest.mark.parametrize("alpha", ALPHAS)
def test_plans_agree(xp, alpha):
    expected = plan.sample_cutmix(5, 9, alpha, DRAWS, (31, 48))
    drawn = to_numpy(plan.sample_cutmix(5, 9, alpha, DRAWS, (31, 48), xp=xp))
    np.testing.assert_array_equal(drawn.permutation, expected.permutation)
    assert (drawn.box != expected.box).any(axis=1).mean() < 1e-4
    np.testing.assert_allclose(lams(xp, alpha), lams(_backend.NUMPY, alpha), atol=1e-4 if alpha < 0.5 else 1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_key_is_a_bijection(seed, step):
    """The step and the seed can be computed from the words, so no two pairs share a key."""
    k0, k1 = prng.key(_backend.NUMPY, seed, step)
    mask = 0xFFFFFFFF

    def unmix(x):
        x ^= x >> 16
        x = x * pow(0x846CA68B, -1, 2**32) & mask
        x ^= (x >> 15) ^ (x >> 30)
        x = x * pow(0x7FEB352D, -1, 2**32) & mask
        return x ^ (x >> 16)

    mix = lambda x: int(_backend.NUMPY.hash(np.array([x], "uint32"))[0])
    assert unmix(k1) ^ mix((k0 + 0x9E3779B9) & mask) == seed
    assert unmix(k0) ^ mix(seed) == step


@pytest.mark.slow
@pytest.mark.alike
def test_a_million_keys_are_distinct():
    steps = np.arange(1000)
    keys = [prng.key(_backend.NUMPY, seed, steps) for seed in range(1000)]
    assert keys[7][1][5] == prng.key(_backend.NUMPY, 7, 5)[1]
    words = np.concatenate([k0.astype("uint64") << np.uint64(32) | k1 for k0, k1 in keys])
    assert len(np.unique(words)) == 1_000_000


def test_draws_are_uncorrelated():
    a = lams(_backend.NUMPY, 0.4)
    others = [lams(_backend.NUMPY, 0.4, step=12), lams(_backend.NUMPY, 0.4, seed=4), np.roll(a, 1)]
    others.append(np.asarray(plan.sample_mixup(3, 11, 0.4, DRAWS, replica=1).lam))
    others.append(np.asarray(plan.sample_mixup(3, 11, 0.4, DRAWS, stream=plan.streams.CUTMIX).lam))
    for other in others:
        assert abs(np.corrcoef(a, other)[0, 1]) < 0.01
    # The measure detects dependent draws: here another alpha uses the same bits.
    assert np.corrcoef(a, lams(_backend.NUMPY, 0.41))[0, 1] > 0.99


@pytest.mark.parametrize("axis", ["step", "seed"])
def test_successive_steps_and_seeds_are_uncorrelated(axis):
    draw = (lambda i: lams(_backend.NUMPY, 0.4, step=i, size=50)) if axis == "step" else None
    draw = draw or (lambda i: lams(_backend.NUMPY, 0.4, seed=i, size=50))
    lam = np.array([draw(i) for i in range(2001)])
    assert abs(np.corrcoef(lam[1:].ravel(), lam[:-1].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(lam[:, 1:].ravel(), lam[:, :-1].ravel())[0, 1]) < 0.01


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(0, 2**31))
def test_permutations_are_permutations(size, seed, step):
    permutation = plan.sample_mixup(seed, step, 0.2, size).permutation
    assert sorted(permutation) == list(range(size))


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.floats(0, 1000),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["sample", "batch"]),
    st.floats(0, 1),
)
def test_boxes_lie_inside_and_lam_is_what_they_leave(shape, alpha, seed, per, rate):
    lam, _, box, *_ = plan.sample_cutmix(seed, 0, alpha, 20, shape, per=per, rate=rate)
    start, stop = np.split(box, 2, axis=1)
    assert ((start >= 0) & (start <= stop) & (stop <= shape)).all()
    np.testing.assert_allclose(lam, 1 - np.prod((stop - start) / shape, axis=1), atol=1e-6)


def test_boxes_are_those_of_the_paper():
    """Side int(size * sqrt(1 - lam)) around a uniform centre, clipped: the share of cut pixels."""
    rng, shape = np.random.default_rng(0), np.array([20, 30])
    lam = rng.beta(1, 1, DRAWS)
    side = (np.sqrt(1 - lam)[:, None] * shape).astype(int)
    centre = rng.integers(0, shape, (DRAWS, 2))
    low, high = np.clip(centre - side // 2, 0, shape), np.clip(centre + side // 2, 0, shape)
    paper = 1 - np.prod((high - low) / shape, axis=1)
    drawn = plan.sample_cutmix(1, 0, 1.0, DRAWS, tuple(shape)).lam
    assert stats.ks_2samp(paper.round(4), drawn.astype("float64").round(4)).pvalue > 1e-3


def test_choice_follows_the_weights():
    counts = np.bincount([int(plan.sample_choice(3, step, (0.2, 0.0, 0.8))) for step in range(5000)], minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] / 5000 - 0.2) < 0.03


def test_branches_with_one_seed_are_independent():
    """A seed shared by a choice and its layers must not tie the choice to their draws."""
    choices = [int(plan.sample_choice(7, step, (0.5, 0.5))) for step in range(5000)]
    lam = [float(plan.sample_mixup(7, step, 1.0, 1).lam[0]) for step in range(5000)]
    assert abs(np.corrcoef(choices, lam)[0, 1]) < 0.05
