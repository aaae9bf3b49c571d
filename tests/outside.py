"""What somebody else's package would hold: a kind of target and two mixers, by public names of kmix alone."""

from typing import Any, NamedTuple

import keras

import kmix


@kmix.targets.register("outside")
class Angles(kmix.targets.Target):
    """Angles in degrees, mixed along the circle."""

    def mix(self, xp, y, plan, weights):
        way = (xp.take(y, plan.permutation) - y + 180) % 360 - 180
        return (y + (1 - xp.along(plan.lam, y)) * way) % 360


class Rows(NamedTuple):
    first: Any

    def paste(self, xp, x, permutation, axes):
        row = xp.reshape(xp.arange(xp.size(x, 1)), (1, -1) + (1,) * (len(x.shape) - 2))
        return xp.where(row < xp.along(self.first, x), x, xp.take(x, permutation))


@keras.saving.register_keras_serializable(package="outside")
class RowMix(kmix.layers.MixLayer):
    """Pastes the lower rows of the partner."""

    inputs = kmix.targets.Pasted("channels_last")
    stream = kmix.plan.reserve("RowMix", 4096)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, *, xp, **settings) -> kmix.MixPlan:
        drawn = kmix.plan.sample_mixup(seed, step, alpha, batch_size, stream=self.stream, xp=xp, **settings)
        rows = xp.cast(spatial_shape[0], "float32")
        first = xp.math.floor(drawn.lam * rows + 0.5)
        return drawn._replace(lam=first / rows, region=Rows(xp.cast(first, "int32")))


@keras.saving.register_keras_serializable(package="outside")
class Strong(kmix.layers.MixLayer):
    """Blends samples with partners that never outweigh them."""

    fits_in_models = True
    inputs = kmix.targets.Blended("float32")

    def sample(self, seed, step, alpha, batch_size, spatial_shape, *, xp, **settings) -> kmix.MixPlan:
        drawn = kmix.plan.sample_mixup(seed, step, alpha, batch_size, stream=4112, xp=xp, **settings)
        return drawn._replace(lam=xp.math.maximum(drawn.lam, 1 - drawn.lam))


kmix.plan.reserve("Strong", 4112)
