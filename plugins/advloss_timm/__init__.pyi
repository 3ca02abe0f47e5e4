from ._batch_norm import BatchNormLocal as BatchNormLocal
from ._dino import dino as dino
from ._map_heads import MapHeads as MapHeads
from ._projected import projected as projected
from ._pyramid import PyramidFeatures as PyramidFeatures
from ._token_heads import TokenHeads as TokenHeads
from ._tokens import TokenFeatures as TokenFeatures
