from ._create import GENERATORS as GENERATORS
from ._create import create_generator as create_generator
from ._dcgan import DCGANGenerator as DCGANGenerator
from ._mlp import MLPGenerator as MLPGenerator
from ._r3gan import R3GANGenerator as R3GANGenerator
from ._resnet import ResNetGenerator as ResNetGenerator
from ._style import StyleGenerator as StyleGenerator
