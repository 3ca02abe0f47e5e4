from ._hinge import Hinge as Hinge
from ._least_squares import LeastSquares as LeastSquares
from ._non_saturating import NonSaturating as NonSaturating
from ._relativistic import RelativisticPairing as RelativisticPairing
from ._relativistic_average import RelativisticAverage as RelativisticAverage
from ._saturating import Saturating as Saturating
from ._wasserstein import Wasserstein as Wasserstein
