"""`kmix.diagnostics.compare` against formulas in NumPy, scikit-learn and SciPy."""

import re
import sys
import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from helpers import tf

import kmix
from kmix._backend.gradients import input_gradient
from kmix.diagnostics import Comparison, compare
from kmix.diagnostics.models import attack
from kmix.diagnostics.report import Report
from kmix.diagnostics.scores import Difference, difference, difference_of_errors, verdict

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


def softmax(z):
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def ece(confidence, accuracy, bins):
    """Guo et al.: bins (lo, hi], the first with its lower edge."""
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins) | ((k == 0) & (confidence == 0))
        if inside.any():
            total += inside.mean() * abs(accuracy[inside].mean() - confidence[inside].mean())
    return total


def oracle(y, p, out=None, bins=15):
    """All scores of `p`, from their formulas."""
    shares = y if y.ndim == 2 and y.shape[1] == p.shape[1] else np.eye(p.shape[1])[y.reshape(-1)]
    true, predicted = shares.argmax(axis=1), p.argmax(axis=1)
    mass = shares[np.arange(len(p)), predicted]
    halves = 0.5 if p.shape[1] == 2 else 1.0
    scores = {
        "error": np.mean(predicted != true),
        "nll": np.mean(np.sum(-shares * np.log(np.maximum(p, 2**-52)), axis=1)),
        "brier": halves * np.mean(np.sum((p - shares) ** 2, axis=1)),
        "ece": ece(p.max(axis=1), mass, bins),
        "confidence_gap": p.max(axis=1).mean() - mass.mean(),
        "worst_recall": min(np.mean(predicted[true == c] == c) for c in set(true)),
    }
    if out is not None:
        inside, outside = p.max(axis=1)[:, None], out.max(axis=1)[None]
        scores["auroc_out"] = np.mean((inside > outside) + 0.5 * (inside == outside))
    return scores


def random_probabilities(classes, size=200, ties=False):
    p = softmax(RNG.normal(size=(size, classes)) * 2)
    if ties:
        p = np.round(p * 4) / 4
        p[:, 0] += 1 - p.sum(axis=1)
        p = np.where((p < 0).any(axis=1, keepdims=True), 1 / classes, p)
    return p


CASES = {
    "binary": (RNG.integers(0, 2, 200), random_probabilities(2), random_probabilities(2)),
    "many classes": (RNG.integers(0, 20, 200), random_probabilities(20), random_probabilities(20)),
    "ids (B, 1)": (RNG.integers(0, 4, (200, 1)), random_probabilities(4), random_probabilities(4)),
    "one-hot": (np.eye(5)[RNG.integers(0, 5, 200)], random_probabilities(5), random_probabilities(5)),
    "soft": (RNG.dirichlet(np.ones(4), 200), random_probabilities(4), random_probabilities(4)),
    "ties": (RNG.integers(0, 4, 200), random_probabilities(4, ties=True), random_probabilities(4, ties=True)),
    "a class without samples": (RNG.integers(0, 3, 200), random_probabilities(6), random_probabilities(6)),
    "certain": (RNG.integers(0, 3, 200), np.eye(3)[RNG.integers(0, 3, 200)], random_probabilities(3)),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_formulas(case):
    y, a, b = CASES[case]
    out = [random_probabilities(a.shape[1], 50, ties=case == "ties") for _ in range(2)]
    found = compare({"a": a, "b": b}, y=y, x_out={"a": out[0], "b": out[1]}).to_dict()
    for name, p, outside in (("a", a, out[0]), ("b", b, out[1])):
        expected = oracle(y, p, outside)
        assert set(found[name]) == set(expected)
        for metric, value in expected.items():
            assert found[name][metric]["mean"] == pytest.approx(value, abs=1e-6), metric
            assert found[name][metric]["values"] == [found[name][metric]["mean"]]


@pytest.mark.parametrize("case", ["binary", "many classes", "ties", "a class without samples", "certain"])
def test_scores_are_those_of_scikit_learn(case):
    y, a, b = CASES[case]
    found, classes = compare({"a": a, "b": b}, y=y).to_dict()["a"], range(a.shape[1])
    assert found["nll"]["mean"] == pytest.approx(sklearn.metrics.log_loss(y, a, labels=classes), abs=1e-6)
    brier = sklearn.metrics.brier_score_loss(y, a[:, 1] if a.shape[1] == 2 else a, labels=classes)
    assert found["brier"]["mean"] == pytest.approx(brier, abs=1e-6)
    assert found["error"]["mean"] == pytest.approx(1 - sklearn.metrics.accuracy_score(y, a.argmax(axis=1)), abs=1e-9)


def test_the_number_of_bins_counts():
    y, a, b = CASES["many classes"]
    found = compare({"a": a, "b": b}, y=y, num_bins=4).to_dict()
    assert found["b"]["ece"]["mean"] == pytest.approx(oracle(y, b, bins=4)["ece"], abs=1e-6)


def test_logits_and_single_columns_are_probabilities():
    y, z = RNG.integers(0, 2, 50), RNG.normal(size=(50, 1))
    sigmoid = 1 / (1 + np.exp(-z))
    both = np.concatenate([1 - sigmoid, sigmoid], axis=1)
    logits = compare({"a": z, "b": -z}, y=y, from_logits=True).to_dict()
    for other in ({"a": sigmoid, "b": 1 - sigmoid}, {"a": both, "b": both[:, ::-1]}):
        found = compare(other, y=y[:, None]).to_dict()
        for metric, value in logits["a"].items():
            assert found["a"][metric]["mean"] == pytest.approx(value["mean"], abs=1e-6)


def seeded(seeds=4, size=300):
    y = RNG.integers(0, 3, size)
    easy = [softmax(3 * np.eye(3)[y] + RNG.normal(size=(size, 3)) * 1.2) for _ in range(seeds)]
    hard = [softmax(3 * np.eye(3)[y] + RNG.normal(size=(size, 3)) * 2.0) for _ in range(seeds)]
    return y, hard, easy


@pytest.mark.parametrize("reference", [None, "hard", "easy"])
def test_differences_are_paired_and_have_t_intervals(reference):
    y, hard, easy = seeded()
    result = compare({"hard": hard, "easy": easy}, y=y, reference=reference)
    found, reference = result.to_dict(), reference or "hard"
    other = "easy" if reference == "hard" else "hard"
    assert result.interval == "seeds"
    for metric, one in found[other].items():
        values = np.array(one["values"])
        assert one["mean"] == pytest.approx(values.mean())
        assert one["std"] == pytest.approx(values.std(ddof=1))
        change = values - found[reference][metric]["values"]
        interval = scipy.stats.t.interval(0.95, len(change) - 1, change.mean(), scipy.stats.sem(change))
        ends = one["difference"]["low"], one["difference"]["high"]
        assert one["difference"]["mean"] == pytest.approx(change.mean())
        assert ends == pytest.approx(interval, abs=1e-9)
        assert "difference" not in found[reference][metric]


def test_with_one_seed_only_the_error_has_an_interval_over_the_samples():
    y, hard, easy = seeded()
    result = compare({"hard": hard[0], "easy": [easy[0]]}, y=y)
    found = result.to_dict()["easy"]
    assert result.interval == "samples"
    missed, gained = ((p.argmax(1) != y).astype(int) for p in (hard[0], easy[0]))
    b, c, n = np.sum(gained > missed) + 1, np.sum(gained < missed) + 1, len(y) + 2
    half = scipy.stats.norm.ppf(0.975) * np.sqrt((b + c - (b - c) ** 2 / n) / n**2)
    assert found["error"]["difference"]["low"] == pytest.approx((b - c) / n - half, abs=1e-4)
    assert found["error"]["difference"]["high"] == pytest.approx((b - c) / n + half, abs=1e-4)
    for metric, one in found.items():
        assert one["std"] is None
        assert metric == "error" or one["difference"]["low"] is one["difference"]["high"] is None
    assert "over test samples" in str(result).replace("\n", " ")
    assert "so nothing is known about another training" in result.verdict


def test_the_interval_over_samples_covers():
    """On new samples of two fixed models it holds the true difference about 95 times of a hundred."""
    rng, truth, covered = np.random.default_rng(1), 0.05 - 0.08, 0
    for _ in range(400):
        both, fates = rng.random(150) < 0.1, rng.random(150)
        first = both | (fates < 0.05 / 0.9)
        second = both | (fates > 1 - 0.08 / 0.9)
        one = difference_of_errors(first, second)
        covered += one.low <= truth <= one.high
        assert one.low <= one.mean <= one.high
    assert 0.92 <= covered / 400 <= 0.99
    nothing = difference_of_errors(np.zeros(20), np.zeros(20))
    assert nothing.low < 0 < nothing.high


# Models, and FGSM.


def linear(classes, scale=1.0, last="activation"):
    """A linear softmax model, and its weights."""
    kernel, bias = RNG.normal(size=(6, classes)) * scale, RNG.normal(size=classes) * scale
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Flatten()])
    activation = "sigmoid" if classes == 1 else "softmax"
    model.add(keras.layers.Dense(classes, activation=activation if last == "activation" else None))
    if last == "layer":
        model.add(keras.layers.Softmax())
    model.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return model, kernel.astype("float32").astype("float64"), bias.astype("float32").astype("float64")


def fgsm(x, y, kernel, bias, eps, bounds=None):
    """The attack in float64, by the gradient of the cross-entropy of the margin, which is exact at any confidence."""
    z = x.reshape(len(x), -1) @ kernel + bias
    if z.shape[1] == 1:
        z, kernel = np.concatenate([0 * z, z], axis=1), np.concatenate([0 * kernel, kernel], axis=1)
    own = np.eye(z.shape[1])[y] == 1
    others = softmax(np.where(own, -np.inf, z))
    gradient = (others - own) @ kernel.T
    moved = x + eps * np.sign(gradient).reshape(x.shape)
    return moved if bounds is None else np.clip(moved, *bounds)


def move(model, x, y, eps, batch_size=128):
    return attack(model, x, y, eps, bounds=None, from_logits=False, batch_size=batch_size)


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "last", "scale"),
    [
        *((4, "activation", 1), (4, "layer", 1), (4, "logits", 1), (1, "activation", 1), (1, "logits", 1)),
        *((3, "activation", 300), (3, "logits", 300), (1, "activation", 300), (3, "layer", 5)),
    ],
)
def test_fgsm_is_that_of_the_formula(classes, last, scale):
    x = RNG.uniform(-0.5, 0.8, (70, 2, 3)).astype("float32")
    y = RNG.integers(0, max(2, classes), 70)
    model, kernel, bias = linear(classes, scale, last)
    activation = model.layers[-1].get_config().get("activation")
    bounds, is_logits = (-0.5, 0.8), last == "logits"
    for limits in (None, bounds):
        expected = fgsm(x.astype("float64"), y, kernel, bias, 0.25, limits)
        moved = attack(model, x, y, 0.25, bounds=limits, from_logits=is_logits, batch_size=32)
        np.testing.assert_allclose(moved, expected, atol=1e-6)
    assert model.layers[-1].get_config().get("activation") == activation
    settings = {"eps": 0.25, "bounds": bounds, "from_logits": is_logits, "batch_size": 32}
    found = compare({"a": model, "b": model}, x, y, **settings).to_dict()
    z = expected.reshape(70, -1) @ kernel + bias
    wrong = (z[:, 0] > 0) != y if classes == 1 else z.argmax(axis=1) != y
    assert found["a"]["error_fgsm"]["mean"] == pytest.approx(wrong.mean(), abs=1e-6)


def test_fgsm_goes_through_probabilities_where_there_is_no_activation_to_take_off():
    x, y = RNG.uniform(-0.5, 0.8, (20, 2, 3)).astype("float32"), RNG.integers(0, 2, 20)
    for classes in (1, 2):
        model, kernel, bias = linear(classes)
        moved = move(lambda x, model=model: model(x), x, y, 0.25, 8)
        np.testing.assert_allclose(moved, fgsm(x.astype("float64"), y, kernel, bias, 0.25), atol=1e-6)


def test_samples_without_a_gradient_are_counted():
    x, y = RNG.uniform(-0.5, 0.5, (70, 2, 3)).astype("float32"), RNG.integers(0, 3, 70)
    model, kernel, bias = linear(3, 300, last="layer")
    z = x.reshape(70, -1) @ kernel + bias
    with warnings.catch_warnings(record=True) as caught:  # `pytest.warns` gives on warnings of Keras that are ignored.
        warnings.simplefilter("always")
        moved = move(model, x, y, 0.25)
    still = np.all(moved == x, axis=(1, 2))
    (message,) = [str(one.message) for one in caught if one.category is UserWarning]
    assert re.search(f"could not move {still.sum()} of 70 samples.*`from_logits=True`", message)
    assert 0 < still.sum() < 70
    assert np.all(np.ptp(z, axis=1)[still] > 80)


def test_an_activation_that_is_not_the_last_step_stays():
    kernel = RNG.normal(size=(3, 4)).astype("float32")
    inputs = keras.Input((3,))
    p = keras.layers.Dense(4, activation="softmax", use_bias=False)(inputs)
    squares = keras.ops.square(keras.ops.flip(p, axis=1))
    model = keras.Model(inputs, squares / keras.ops.sum(squares, axis=1, keepdims=True))
    model.set_weights([kernel])
    x, y = RNG.normal(size=(20, 3)).astype("float32"), RNG.integers(0, 4, 20)
    # Squares that are scaled to sum to 1 are the softmax of twice the logits.
    expected = fgsm(x.astype("float64"), y, 2.0 * kernel[:, ::-1], np.zeros(4), 0.1)
    np.testing.assert_allclose(move(model, x, y, 0.1, 8), expected, atol=1e-6)


@pytest.mark.slow
def test_fgsm_of_soft_labels_attacks_their_class():
    x, model = RNG.random((9, 2, 3)).astype("float32"), linear(3)[0]
    y = RNG.dirichlet(np.ones(3), 9)
    soft, hard = (compare({"a": model, "b": model}, x, labels, eps=0.5) for labels in (y, y.argmax(axis=1)))
    np.testing.assert_array_equal(soft.attacked["a"][0], hard.attacked["a"][0])


@pytest.mark.slow
def test_fgsm_moves_floats_and_uint8_but_no_ids():
    class Model(keras.Model):
        def call(self, x):
            z = keras.ops.stack([x["a"][:, 0] + keras.ops.cast(x["ids"], "float32"), x["a"][:, 1]], axis=1)
            return keras.ops.softmax(z + keras.ops.cast(x["image"], "float32"))

    x = {"a": np.zeros((5, 2)), "ids": np.arange(5), "image": np.full((5, 1), 200, "uint8")}
    moved = move(Model(), x, np.zeros(5, int), 2.0, 2)
    np.testing.assert_array_equal(moved["a"], [[-2, 2]] * 5)
    np.testing.assert_array_equal(moved["ids"], x["ids"])
    np.testing.assert_allclose(moved["image"], 200, atol=2)
    found = compare({"a": Model(), "b": Model()}, x, np.zeros(5, int), eps=2.0).to_dict()
    assert found["a"]["error_fgsm"]["mean"] >= found["a"]["error"]["mean"]


class Branching(keras.Model):
    """A model of Python code that no compiler takes."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        z = self.dense(x)
        return keras.ops.softmax(2 * z if keras.ops.max(z) > 0 else z)


def test_fgsm_of_what_cannot_be_compiled():
    x, y, model = RNG.normal(size=(9, 4)).astype("float32"), np.arange(9) % 3, Branching()
    model.compile(run_eagerly=True)
    found = compare({"model": model, "function": lambda x: model(x)}, x, y, eps=0.1).to_dict()
    assert found["model"]["error_fgsm"]["mean"] == found["function"]["error_fgsm"]["mean"]
    kernel, bias = (weight.astype("float64") for weight in model.get_weights())
    scale = 2.0 if (x @ kernel + bias).max() > 0 else 1.0
    expected = fgsm(x.astype("float64"), y, scale * kernel, scale * bias, 0.1)
    np.testing.assert_allclose(move(model, x, y, 0.1, 9), expected, atol=1e-6)


@pytest.mark.slow
def test_eps_zero_changes_nothing():
    x, model = RNG.random((9, 2, 3)).astype("float32"), linear(3)[0]
    found = compare({"a": model, "b": model}, x, np.arange(9) % 3, eps=0).to_dict()["a"]
    assert found["error_fgsm"]["values"] == found["error"]["values"]


def test_gradients_have_the_structure_of_the_inputs():
    x = [{"a": np.ones((2, 3), "float32"), "ids": np.arange(2)}, np.ones(2, "float32")]
    function = lambda x: keras.ops.sum(x[0]["a"] ** 3 * keras.ops.cast(x[0]["ids"], "float32")[:, None])
    found = input_gradient(function)(x)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found[0]["a"]), [[0, 0, 0], [3, 3, 3]])
    assert found[0]["ids"] is None
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found[1]), [0, 0])
    constant = input_gradient(lambda x: keras.ops.sum(keras.ops.ones(2)))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(constant(np.ones(2, "float32"))), [0, 0])


def test_gradients_follow_further_arrays_and_the_weights_of_a_model():
    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((None, 2))
    gradient = input_gradient(lambda x, scale: keras.ops.sum(scale * layer(x)), layer.variables)
    for weights, scale in (([[1.0], [2.0]], 3.0), ([[5.0], [7.0]], 11.0)):
        layer.set_weights([np.array(weights, "float32")])
        found = keras.ops.convert_to_numpy(gradient(np.ones((1, 2), "float32"), np.float32(scale)))
        np.testing.assert_allclose(found, scale * np.array(weights).T, rtol=1e-6)


def test_gradients_leave_layers_that_hold_state_usable():
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    x = np.ones((4, 3), "float32")
    found = input_gradient(lambda x: keras.ops.sum(model(x, training=True)), model.variables)(x)
    assert tuple(found.shape) == (4, 3)
    assert np.isfinite(model.predict(x, verbose=0)).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())


class Batches(keras.utils.PyDataset):
    num_batches = 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


X, Y = RNG.random((12, 2, 3)).astype("float32"), np.arange(12) % 3


@pytest.mark.slow
def test_all_kinds_of_models_and_inputs_agree():
    model, kernel, bias = linear(3)
    trainer = kmix.MixTrainer(model, mixer=kmix.MixUp(0.2))
    function = lambda x: softmax(np.asarray(keras.ops.convert_to_numpy(x)).reshape(len(x), -1) @ kernel + bias)

    class Predicts:
        predict = staticmethod(function)

    expected = compare({"a": function(X), "b": function(X)}, X, Y).to_dict()["a"]
    dictionary = tf.data.Dataset.from_tensor_slices({"images": X, "labels": Y}).batch(5)
    loaders = [slices(X, Y).batch(5), dictionary, Batches(), iter([[X[:7], Y[:7]], [X[7:], Y[7:]]])]
    loaders.append(slices(X, Y, np.full(12, 2.0)).batch(5))
    for source in [(X, Y), (X.astype("float64"), np.eye(3)[Y]), *[(loader,) for loader in loaders]]:
        layer = keras.layers.Lambda(lambda x: model(x))
        models = {"a": model, "b": trainer, "c": function, "d": Predicts(), "e": layer}
        found = compare(models, *source, batch_size=5).to_dict()
        for name in models:
            for metric, one in expected.items():
                assert found[name][metric]["mean"] == pytest.approx(one["mean"], abs=1e-5), (name, metric)
    attacked = compare({"a": model, "b": trainer}, X, Y, eps=0.3, x_out=X + 3).to_dict()
    assert attacked["a"]["error_fgsm"]["values"] == attacked["b"]["error_fgsm"]["values"]
    out = np.mean(function(X).max(1)[:, None] > function(X + 3).max(1)[None])
    assert attacked["b"]["auroc_out"]["mean"] == pytest.approx(out, abs=1e-6)


# Weights.


@pytest.mark.parametrize("case", ["binary", "many classes", "soft"])
def test_weights_count_samples_several_times(case):
    y, a, b = CASES[case]
    out, weights = random_probabilities(a.shape[1], 50), RNG.integers(0, 4, 200)
    again = np.repeat(np.arange(200), weights)
    settings = {"x_out": {"a": [out] * 2, "b": [out] * 2}}
    found = compare({"a": [a, b], "b": [b, b]}, y=y, sample_weight=weights, **settings).to_dict()
    expected = compare({"a": [a[again], b[again]], "b": [b[again]] * 2}, y=y[again], **settings).to_dict()
    for name, metrics in expected.items():
        for metric, one in metrics.items():
            np.testing.assert_allclose(found[name][metric]["values"], one["values"], atol=1e-6, err_msg=metric)


def test_weights_in_the_interval_over_the_samples():
    y, hard, easy = seeded()
    missed, gained = (p.argmax(1) != y for p in (hard[0], easy[0]))
    plain = difference_of_errors(gained, missed)
    np.testing.assert_allclose(difference_of_errors(gained, missed, np.full(300, 7.0))[:3], plain[:3])
    half = np.arange(300) < 150
    assert compare({"hard": hard, "easy": easy}, y=y, sample_weight=half.tolist()).seeds == 4
    np.testing.assert_allclose(
        difference_of_errors(gained, missed, half.astype("float64"))[:3],
        difference_of_errors(gained[half], missed[half])[:3],
    )
    # Unequal weights are worth fewer samples: the interval is wider.
    uneven = difference_of_errors(gained, missed, RNG.exponential(size=300) ** 2)
    assert uneven.high - uneven.low > plain.high - plain.low
    found = compare({"hard": hard[0], "easy": easy[0]}, y=y, sample_weight=half)
    expected = compare({"hard": hard[0][half], "easy": easy[0][half]}, y=y[half])
    assert found.differences["easy"]["error"].low == pytest.approx(expected.differences["easy"]["error"].low)
    assert "weigh the samples" in str(found)
    plt.close(found.plot())


# Data that cannot be read is refused before a model is asked.


def endless():
    while True:
        yield X, Y


class EndlessBatches(Batches):
    num_batches = None


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((lambda: slices(X, Y).batch(4).repeat(),), "must have an end"),
        ((EndlessBatches,), "must have an end"),
        ((endless,), "must have an end"),
        ((lambda: slices(X, Y),), "single samples"),
        ((lambda: slices(X, Y, Y, Y).batch(4),), "a batch of type tuple of 4"),
        ((lambda: slices(X, {"a": Y, "b": Y}).batch(4),), "labels ['a', 'b']"),
        ((lambda: iter([{"images": X, "labels": Y, "tags": Y}]),), "labels ['labels', 'tags']"),
        ((lambda: iter([{"x": X, "y": Y}]),), "labelled batches"),
        ((lambda: iter([(X, Y[:5])]),), "one size. Received: [5, 12]"),
        ((lambda: iter([(X, Y), (X[:, :1], Y)]),), "but for the first axis"),
        ((lambda: iter([(X, Y), (X, Y, Y)]),), "the same arrays"),
        ((lambda: X, {"a": Y, "b": Y}), "2 arrays in a dict"),
        ((lambda: X, [Y, Y]), "2 arrays in a list"),
        ((lambda: X, (np.eye(3)[Y] + np.eye(3)[[0]]).clip(0, 1)), "not for tags"),
        ((lambda: X, Y, {"from_logits": "abc"}), "True or False"),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_model_is_asked(arguments, match, monkeypatch):
    monkeypatch.setattr("kmix.diagnostics.data.MOST_SAMPLES", 100)
    data, y, settings = arguments + (None, {})[len(arguments) - 1 :]

    def model(x):
        raise AssertionError("The model was asked.")

    with pytest.raises((ValueError, TypeError), match=re.escape(match)):
        compare({"a": model, "b": model}, data(), y, **settings)


def test_wrong_outputs_show_on_the_first_batch():
    asked = []

    def two_outputs(x):
        asked.append(len(x))
        return [np.full((len(x), 3), 1 / 3)] * 2

    with pytest.raises(ValueError, match="must have one output"):
        compare({"a": two_outputs, "b": two_outputs}, X, Y, batch_size=4)
    assert asked == [4]
    inputs = keras.Input((2, 3))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, {name: keras.layers.Dense(3, activation="softmax")(flat) for name in "ab"})
    with pytest.raises(ValueError, match="2 outputs in a dict"):
        compare({"a": model, "b": model}, X, Y)


# What it shows.


def test_the_table_is_one_screen_and_says_what_was_compared(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    y, hard, easy = seeded()
    result = compare({"hard": hard, "[b]easy[/b]": easy}, y=y)
    text = str(result)
    assert "[b]easy[/b] against hard: 300 samples, 3 classes, 4 seeds each" in text
    error = result.to_dict()["hard"]["error"]
    assert f"{100 * error['mean']:.2f} ± {100 * error['std']:.2f}" in text
    assert len(text.splitlines()) <= 40
    assert result.verdict.split(";")[0] in text.replace("\n", " ")
    assert "<td>[b]easy[/b]</td>" in result._repr_html_()
    assert repr(result) == text


def test_text_is_aligned():
    report = Report("T", ["name", "n"], [["a", "1.5"], ["bcdef", "-20"]], ["A finding."], ["A note."])
    lines = ["T", " name     n", " ──────────", " a      1.5", " bcdef  -20", "A finding.", "A note."]
    assert report.text().splitlines() == lines


def test_to_frame_has_a_row_for_each_model_and_metric():
    pytest.importorskip("pandas", reason="pandas is not installed")
    y, hard, easy = seeded()
    result = compare({"hard": hard, "easy": easy}, y=y)
    frame, found = result.to_frame(), result.to_dict()
    assert len(frame) == sum(map(len, found.values()))
    assert frame.loc[("easy", "nll"), "high"] == found["easy"]["nll"]["difference"]["high"]
    assert np.isnan(frame.loc[("hard", "nll"), "low"])


def gaps(*values):
    return difference(values, np.zeros(len(values)))


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        ({"error": gaps(-0.02, -0.025, -0.015)}, r"lower error on 3 of 3 seeds, by 0.8 to 3.2 points\.", "undecided"),
        ({"error": gaps(0.02, 0.025, 0.015)}, "higher error on 3 of 3 seeds, by 0.8 to 3.2 points", "lower"),
        (
            {"error": gaps(-0.02, -0.03, 0.01)},
            r"undecided \(lower on 2 of 3 seeds, -6.5 to \+3.8 points\)",
            "lower err",
        ),
        ({"error": gaps(-0.02, -0.02)}, "undecided .the same difference on every seed", "lower error"),
        ({"error": gaps(-0.1, 0.1), "ece": gaps(0.1, 0.101)}, "calibration worse; overconfident on 2 of 2", "better"),
        ({"error": gaps(-0.1, 0.1), "worst_recall": gaps(0.1, 0.101)}, "worst-class recall better", "worse"),
        ({"error": gaps(-0.1, 0.1), "auroc_out": gaps(-0.1, -0.101)}, "detection of x_out worse", "better"),
        ({"error": gaps(-0.1, 0.1), "nll": gaps(-0.1, 0.1)}, "likelihood undecided", "better|worse"),
        ({"error": gaps(-0.1, 0.1), "confidence_gap": gaps(0.1, 0.101)}, r"a against b: error [^;]*\.$", "confid"),
        ({"error": Difference(-0.1, -0.12, -0.08, np.array([-0.1]))}, "lower error on these 99 samples", "of 1 seeds"),
        ({"error": Difference(-0.1, -0.12, 0.08, np.array([-0.1]))}, "undecided .-12.0 to .8.0 points", "lower"),
    ],
)
def test_the_verdict_claims_what_the_intervals_allow(found, said, unsaid):
    seeds = len(found["error"].values)
    text = verdict("a", "b", found, [0.1] * seeds, 99)
    assert re.search(said, text), text
    assert not re.search(unsaid, text), text


def test_the_verdict_never_claims_against_an_interval():
    rng = np.random.default_rng(2)
    for _ in range(200):
        values = rng.normal(rng.normal() * 0.02, 0.02, rng.integers(2, 6))
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
        text = verdict("a", "b", {"error": gaps(*values)}, values, 99)
        assert ("lower error on" in text) == (high < 0)
        assert ("higher error on" in text) == (low > 0)


def test_the_page_needs_nothing_but_itself(tmp_path):
    y, hard, easy = seeded()
    result = compare({"hard": hard, "<easy> & co": easy}, y=y)
    result.save_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    assert re.findall(r'src="([^,]*),', text) == ["data:image/png;base64"] * 3
    assert "<easy>" not in text
    assert "&lt;easy&gt; &amp; co against hard: lower error on 4 of 4 seeds" in text
    assert 'name="viewport"' in text
    assert text.count("<tr") == 1 + 2 * 6
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_the_plot_shows_what_was_found():
    y, hard, easy = seeded()
    out = [[random_probabilities(3, 40) for _ in range(4)] for _ in range(2)]
    result = compare({"hard": hard, "easy": easy}, y=y, x_out={"hard": out[0], "easy": out[1]})
    figure = result.plot()
    reliability, confidence, *panels = figure.axes
    names = [line.get_label() for line in reliability.lines[1:]]
    errors = [100 * np.mean(result.scores[name]["ece"]) for name in ("hard", "easy")]
    assert names == [f"hard: ECE {errors[0]:.1f} %", f"easy: ECE {errors[1]:.1f} %"]
    texts = [text.get_text() for text in confidence.get_legend().get_texts()]
    assert texts == ["hard", "easy", "hard, x_out", "easy, x_out"]
    assert len(panels) == 7
    for ax, (metric, one) in zip(panels, result.differences["easy"].items(), strict=True):
        factor = 100 if "%" in ax.get_title() else 1
        (bar,) = ax.containers
        ends = bar.lines[2][0].get_segments()[0][:, 0]
        np.testing.assert_allclose(ends, [factor * one.low, factor * one.high], rtol=1e-6)
        np.testing.assert_allclose(ax.lines[0].get_xdata(), factor * one.values)
        assert ax.get_xlim()[0] <= 0 <= ax.get_xlim()[1]
        assert bool(ax.patches) == (metric != "confidence_gap")
    figure.canvas.draw()
    plt.close(figure)


def test_a_plot_of_one_seed_has_one_interval():
    y, hard, easy = seeded()
    figure = Comparison(np.eye(3)[y], {"a": hard[:1], "b": easy[:1], "c": hard[1:2]}, reference="b").plot()
    assert [len(ax.containers) for ax in figure.axes[2:]] == [2, 0, 0, 0, 0, 0]
    plt.close(figure)


# Errors.

P = random_probabilities(3, 12)
MODEL = linear(3)[0]
LOGITS = linear(3, scale=3, last="logits")[0]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([P, P], None, Y), "must be a dictionary of models"),
        (({"a": P}, None, Y), "at least two models. Received: 1: 'a'"),
        (({"a": "file.keras", "b": P}, None, Y), "Received: a str for 'a'"),
        (({"a": [P, P], "b": [P]}, None, Y), "as many as the others. Received: 2 for 'a', 1 for 'b'"),
        (({"a": [], "b": []}, None, Y), "one for each seed, as many as the others. Received: 0"),
        (({"a": P, "b": MODEL}, X, Y), "must hold models or predictions. Received: some of each"),
        (({"a": P, "b": P}, None, None), "`y` must hold the labels"),
        (({"a": MODEL, "b": MODEL}, X, None), "`y` must hold the labels"),
        (({"a": MODEL, "b": MODEL}, None, Y), "Models need inputs `x`"),
        (({"a": MODEL, "b": MODEL}, X, Y[:5]), "a label for each input. Received: y of shape (5,) and 12 inputs"),
        (({"a": P, "b": P}, None, Y[:5]), "a label for each prediction. Received: 5 labels and 12 predictions"),
        (({"a": MODEL, "b": MODEL}, X[:0], Y[:0]), "of at least 1 sample. Received: (0, 2, 3)"),
        (({"a": MODEL, "b": MODEL}, {"a": X, "b": X[:3]}, Y), "Received: (12, 2, 3), (3, 2, 3)"),
        (({"a": MODEL, "b": MODEL}, iter([]), None), "a data set without batches"),
        (({"a": MODEL, "b": MODEL}, iter([X]), None), "must give labelled batches"),
        (({"a": MODEL, "b": MODEL}, iter([(X, Y)]), Y), "brings its own labels"),
        (({"a": P[:0], "b": P[:0]}, None, Y), "Predictions must have the shape (B, C)"),
        (({"a": P, "b": P}, None, Y[:0]), "y of shape (0,)"),
        (({"a": P[:, 0], "b": P}, None, Y), "an array of shape (12,) and dtype float64 for 'a'"),
        (({"a": P, "b": P * np.nan}, None, Y), "NaN or infinite predictions for 'b'"),
        (
            ({"a": P, "b": random_probabilities(4, 12)}, None, Y),
            "of one shape (B, C). Received: 'a': (12, 3), 'b': (12, 4)",
        ),
        (({"a": P, "b": P * 2}, None, Y), "sums of rows from 2 to 2, for 'b'. If they are logits"),
        (({"a": P, "b": P - 1}, None, Y), "write `from_logits=True`"),
        (({"a": LOGITS, "b": LOGITS}, X, Y), "write `from_logits=True`"),
        (({"a": P, "b": P}, None, np.eye(4)[Y]), "soft labels (B, C) for the 3 classes of the outputs"),
        (({"a": P, "b": P}, None, Y[:, None, None]), "Received: y of shape (12, 1, 1)"),
        (({"a": P, "b": P}, None, np.array(["cat"] * 12)), "Received: y of shape (12,) and dtype str"),
        (({"a": P, "b": P}, None, Y + 1), "whole numbers from 0 to 2 for the 3 classes of the outputs"),
        (({"a": P, "b": P}, None, Y - 1), "y from -1 to 1"),
        (({"a": P, "b": P}, None, Y / 2), "whole numbers from 0"),
        (({"a": P, "b": P}, None, np.ones((12, 3))), "not for tags"),
        (({"a": P / 2, "b": P / 2}, None, Y), "a probability of its own"),
    ],
)
def test_errors(arguments, match):
    error = TypeError if "dictionary" in match or "a str" in match else ValueError
    with pytest.raises(error, match=re.escape(match)):
        compare(*arguments)


@pytest.mark.parametrize(
    ("models", "settings", "match"),
    [
        (MODEL, {"reference": "c"}, "`reference` must be one of 'a', 'b'. Received: reference='c'"),
        (MODEL, {"eps": -0.1}, "`eps` must be a finite number >= 0. Received: eps=-0.1"),
        (MODEL, {"eps": 0.1, "bounds": (1, 0)}, "`bounds` must be the smallest and the largest value"),
        (MODEL, {"num_bins": 0}, "`num_bins` must be an integer >= 1"),
        (MODEL, {"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        (MODEL, {"sample_weight": -np.ones(12)}, "a weight >= 0 for each sample"),
        (MODEL, {"sample_weight": np.ones((12, 3))}, "a weight >= 0 for each sample"),
        (MODEL, {"sample_weight": {"a": np.ones(12)}}, "a weight >= 0 for each sample"),
        (MODEL, {"sample_weight": np.zeros(12)}, "not all 0"),
        (MODEL, {"x_out": X[:0]}, "`x_out` must be an array (B, ...)"),
        (P, {"eps": 0.1}, "FGSM needs models and their inputs `x`. Received: predictions"),
        (P, {"x_out": X}, "predictions of the same names and seeds. Received: a ndarray"),
        (P, {"x_out": {"a": P, "c": P}}, "predictions of the same names and seeds"),
        (P, {"x_out": {"a": MODEL, "b": MODEL}}, "predictions of the same names and seeds"),
        (lambda x: 0 * x[:, 0] + 1 / 3, {"eps": 0.1}, "have a gradient with respect to `x`. Received: a function"),
    ],
)
def test_errors_of_settings(models, settings, match):
    with pytest.raises(ValueError, match=re.escape(match)):
        compare({"a": models, "b": models}, X, Y, **settings)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("sklearn.metrics", lambda result: compare({"a": P, "b": P}, y=Y)),
        ("scipy.stats", lambda result: compare({"a": P, "b": P}, y=Y)),
        ("pandas", lambda result: result.to_frame()),
        ("matplotlib.pyplot", lambda result: result.plot()),
        ("matplotlib.figure", lambda result: result.save_html("page.html")),
    ],
)
def test_what_is_missing_is_named(module, call, monkeypatch):
    result = compare({"a": P, "b": P}, y=Y)
    monkeypatch.setitem(sys.modules, module, None)
    if module == "scipy.stats":
        call = lambda result: compare({"a": [P, P], "b": [P, P]}, y=Y)
    with pytest.raises(ImportError, match=re.escape('`pip install ".[diagnostics]"`')):
        call(result)
