from ._ada import AdaptiveAugment as AdaptiveAugment
from ._diffaugment import DiffAugment as DiffAugment
from ._instance_noise import InstanceNoise as InstanceNoise
