from ._hinge import Hinge as Hinge
