from ._dragan import Dragan as Dragan
from ._gradient_penalty import GradientPenalty as GradientPenalty
from ._lecam import LeCam as LeCam
from ._r1 import R1 as R1
from ._r2 import R2 as R2
from ._weight_clipping import WeightClipping as WeightClipping
