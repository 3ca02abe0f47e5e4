from ._dit import DiT as DiT
from ._flux import Flux as Flux
from ._pixart import PixArt as PixArt
from ._sana import Sana as Sana
from ._stable_diffusion import StableDiffusion as StableDiffusion
from ._stable_diffusion import StableDiffusionXL as StableDiffusionXL
from ._stable_diffusion_3 import StableDiffusion3 as StableDiffusion3
