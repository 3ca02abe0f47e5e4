"""Link torch (or what is named), and what it requires, into another environment: ``share_torch.py VENV [NAME...]``."""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def closure(name, seen):
    """Distributions that `name` requires, itself among them."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key not in seen:
        try:
            seen[key] = distribution(name)
        except PackageNotFoundError:  # for another platform
            return seen
        for requirement in seen[key].requires or []:
            if "extra ==" not in requirement:
                closure(re.match(r"[\w.-]+", requirement).group(), seen)
    return seen


def main(venv, names):
    (site,) = Path(venv).glob("lib/python*/site-packages")
    shared = {}
    for name in names:
        closure(name, shared)
    for dist in shared.values():
        for top in {file.parts[0] for file in dist.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(dist.locate_file(top)).resolve())


main(sys.argv[1], sys.argv[2:] or ["torch"])
