"""The mix plan: everything random about one batch, drawn once. Only this package draws random numbers."""

from kmix.plan.audio import sample_audio_mix
from kmix.plan.plan import Instances, MixPlan, Part, PlanKey, Tiles
from kmix.plan.samplers import sample_choice, sample_copy_paste, sample_cutmix, sample_mixup, sample_mosaic
from kmix.plan.streams import reserve

__all__ = [
    "Instances",
    "MixPlan",
    "Part",
    "PlanKey",
    "Tiles",
    "reserve",
    "sample_audio_mix",
    "sample_choice",
    "sample_copy_paste",
    "sample_cutmix",
    "sample_mixup",
    "sample_mosaic",
]
