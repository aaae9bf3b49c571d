"""What another package would hold: a target, two mixers and two pairing rules, by public names of kmix alone."""

from typing import Any, NamedTuple

import keras

import kmix


@keras.saving.register_keras_serializable(package="outside")
class Angles(kmix.targets.Target):
    """Angles in degrees, mixed along the circle."""

    def mix(self, xp, y, weight, plan, info):
        way = (xp.take(y, plan.permutation) - y + 180) % 360 - 180
        return (y + (1 - xp.along(plan.lam, y)) * way) % 360, weight


class Rows(NamedTuple):
    first: Any

    def paste(self, xp, x, permutation, axes):
        row = xp.reshape(xp.arange(xp.size(x, 1)), (1, -1) + (1,) * (len(x.shape) - 2))
        return xp.where(row < xp.along(self.first, x), x, xp.take(x, permutation))


@keras.saving.register_keras_serializable(package="outside")
class RowMix(kmix.layers.MixLayer):
    """Pastes the lower rows of the partner."""

    input_mixing = kmix.layers.Paste("channels_last")
    stream = kmix.plan.reserve("RowMix of the tests", 4096)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, *, xp, **settings) -> kmix.MixPlan:
        drawn = kmix.plan.sample_mixup(seed, step, alpha, batch_size, stream=self.stream, xp=xp, **settings)
        rows = xp.cast(spatial_shape[0], "float32")
        first = xp.math.floor(drawn.lam * rows + 0.5)
        return drawn._replace(lam=first / rows, region=Rows(xp.cast(first, "int32")))


@keras.saving.register_keras_serializable(package="outside")
class Strong(kmix.layers.MixLayer):
    """Blends samples with partners that never outweigh them."""

    fits_in_models = True
    input_mixing = kmix.layers.Blend("float32")
    stream = kmix.plan.reserve("Strong of the tests", 4112)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, *, xp, **settings) -> kmix.MixPlan:
        drawn = kmix.plan.sample_mixup(seed, step, alpha, batch_size, stream=self.stream, xp=xp, **settings)
        return drawn._replace(lam=xp.math.maximum(drawn.lam, 1 - drawn.lam))


@keras.saving.register_keras_serializable(package="outside")
class NextSample(kmix.pairing.Pairing):
    """Each sample mixes with the one that follows it, the last one with the first."""

    bijective = True

    def partners(self, xp, words, key, targets):
        return (xp.arange(xp.size(words, 0)) + 1) % xp.size(words, 0)


@keras.saving.register_keras_serializable(package="outside")
class SameClass(kmix.pairing.Pairing):
    """Only samples of one class mix."""

    def score(self, xp, targets):
        y = targets["labels"]
        return xp.where(xp.sum(y[:, None] * y[None], -1) > 0, 0.0, float("-inf"))
