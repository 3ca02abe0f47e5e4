"""Methods and their options on a command line."""

from __future__ import annotations

import argparse
import inspect
import math
from pathlib import Path
from typing import Any

from advloss import OptionError, parse_component
from advloss_distill.methods._build import METHODS


def positive(text: str) -> float:
    """A number of a command line that is above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return number


def natural(text: str) -> int:
    """A whole number of a command line that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, at least 1")
    return number


def seed(text: str) -> int:
    """A whole number of a command line that all random numbers (torch's, NumPy's, of every process) can begin from."""
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 to {2**31 - 1}")
    return number


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """``--method`` and what methods take. No option has a default here: those are the methods' own."""
    group = parser.add_argument_group("method", "docs/pipelines.md says which takes which option, and the defaults")
    add = group.add_argument
    add("--method", choices=METHODS, default="ladd", help="(default: %(default)s)")
    add("--discriminator", help="add, adversarial: as name:option=value, for example dino:backbone=NAME")
    add("--loss", help="ladd, add, adversarial, dmd2: by name, as name or name:option=value")
    add(
        "--augmentation",
        dest="augmentations",
        action="append",
        help="add, adversarial: of what the discriminator sees, any number of them, such as instance-noise:sigma=0.3",
    )
    add("--pixels", action="store_true", default=None, help="adversarial: judge decoded images")
    add("--crop", type=int, help="side of a window of decoded images, in pixels")
    add("--chunk", type=int, help="samples that are decoded at once")
    add("--image-condition", action="store_true", default=None, help="add: tell an embedding of the real image")
    add("--score-weights", choices=("exponential", "sds", "nfsd"), help="add")
    add("--distillation-weight", type=float, help="of the teacher's term")
    add("--guidance", type=float, nargs="+", help="of the teacher's answers; two for lcm: a range that is told")
    add("--discriminator-steps", type=int, help="dmd2: of the fake score, for one of the student")
    add("--adversary-weight", type=float, help="dmd2, lcm-ladd")
    add("--skip", type=int, help="lcm: timesteps of a solver's step")
    add("--renoise", type=float, nargs=2, metavar=("MEAN", "STD"), help="logit of the noise level that is judged")
    add(
        "--blocks",
        type=int,
        nargs="+",
        help="of the network whose features are judged (default: all; dmd2: the middle)",
    )
    add("--misaligned", type=float, metavar="SHARE", help="of real samples that are fakes, with other prompts")
    add("--r1", dest="r1_method", choices=("head-inputs", "finite-difference", "exact"))
    add("--r1-weight", type=float)


def method_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, for `build_method`, which refuses what the method does not take.

    Raises:
        OptionError: the discriminator, the loss or an augmentation cannot be read.
        PluginError: its file or module cannot be loaded.
    """
    parser = argparse.ArgumentParser()
    add_method_options(parser)
    names = [name for name in vars(parser.parse_args([])) if name != "method"]
    found = {name: value for name in names if (value := getattr(options, name)) is not None}
    for name in {"discriminator", "loss"} & found.keys():
        found[name] = parse_component(found[name])
    if "augmentations" in found:
        found["augmentations"] = [parse_component(text) for text in found["augmentations"]]
    if "guidance" in found and not options.method.startswith("lcm"):
        if len(found["guidance"]) > 1:
            raise OptionError(f"--guidance {found['guidance']}: {options.method} takes one scale; a range is for lcm")
        (found["guidance"],) = found["guidance"]
    return found


def used_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of a run as its card has them: the method's own where none were given, and no others that are unset.

    Components are written as on a command line, and paths by their last part: where things lie is nobody's business.
    """
    takes = inspect.signature(METHODS[options.method]).parameters
    own = {name: option.default for name, option in takes.items() if option.default is not option.empty}
    given = {name: value for name, value in vars(options).items() if value is not None}
    return {name: _written(value) for name, value in {**own, **given}.items() if value is not None}


def _written(value: Any) -> Any:
    match value:
        case (str(name), dict(options)):
            return f"{name}:{','.join(f'{option}={said}' for option, said in options.items())}"
        case Path():
            return value.name
        case str() if Path(value).is_absolute():
            return Path(value).name
    return value


def told_scale(options: argparse.Namespace) -> float | None:
    """The middle of the range of ``--guidance`` that a student is told; None where it is told none."""
    return sum(options.guidance) / 2 if options.guidance and len(options.guidance) == 2 else None
