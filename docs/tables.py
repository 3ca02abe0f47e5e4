"""Write the tables in the README that come from the code: ``python docs/tables.py``, or ``--check`` that they are fresh."""

import sys
from pathlib import Path

from advloss import list_components
from advloss.specs import DiscriminatorSpec

README = Path(__file__).parents[1] / "README.md"
KINDS = ("discriminator", "loss", "regularizer", "augmentation", "recipe")


def components():
    """A table of the components that are part of this distribution."""
    lines = ["| kind | name | | paper |", "|---|---|---|---|"]
    for kind in KINDS:
        for row in list_components(kind):
            if row.distribution.startswith("advloss ") and row.spec is not None:
                paper = row.spec.paper
                source = f"[{paper.year}](https://arxiv.org/abs/{paper.arxiv})" if paper and paper.arxiv else ""
                lines.append(f"| {kind} | `{row.name}` | {row.summary}{_extra(row.spec)} | {source} |")
    return "\n".join(lines)


def _extra(spec):
    notes = []
    if isinstance(spec, DiscriminatorSpec) and spec.conditions:
        notes.append("conditions: " + ", ".join(spec.conditions))
    if spec.extra:
        notes.append(f"needs `advloss[{spec.extra}]`")
    return f" ({'; '.join(notes)})" if notes else ""


def fresh(text):
    """`text` with its tables made anew."""
    begin, end = "<!-- components -->", "<!-- /components -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{components()}\n{end}{tail}"


def main():
    old = README.read_text(encoding="utf-8")
    new = fresh(old)
    if "--check" in sys.argv:
        return "README.md: a table is stale; run python docs/tables.py" if new != old else 0
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
