"""Targets that stay unchanged: the sample keeps its own, whatever its partner has."""

from kmix.targets.target import Target, register


@register("keep")
class Keep(Target):
    """Anything that belongs to the sample alone, such as the target of a denoiser or ids for distillation."""

    is_key = False
    mixes_views = True

    def mix(self, xp, y, plan, weights):
        return y
