"""Print the oldest version that advloss declares of each requirement, for pip: ``name==version`` a line."""

import re
from importlib.metadata import requires

declared = [r for r in requires("advloss") if 'extra == "dev"' not in r.replace("'", '"')]
print(
    *sorted({"==".join(match.groups()) for r in declared if (match := re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", r))}),
    sep="\n",
)
