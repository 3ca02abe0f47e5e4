"""Write what the docs take from the code: ``python docs/tables.py``, or ``--check`` that it is fresh."""

import inspect
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from advloss import list_components
from advloss._causes import CAUSES
from advloss._create import load_target, options_of
from advloss._diagnosis import NUMBERS
from advloss._facts import Facts
from advloss._rules import RULES
from advloss.specs import AugmentationSpec, DiscriminatorSpec, LossSpec, RegularizerSpec
from benchmarks._markdown import results, tables, taken

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OF_PIPELINES = {"distill_estimate": "estimates", "distill_memory": "measured", "shapes": "shapes"}
KINDS = ("discriminator", "loss", "regularizer", "augmentation", "recipe")
PLURAL = {"loss": "Losses"}


def built_in(kind):
    """Rows of the components that are part of this distribution."""
    rows = list_components(kind)
    return [row for row in rows if row.distribution.startswith("advloss ") and row.spec is not None]


def readme(text):
    """`text` with its table made anew."""
    lines = ["| kind | name | | paper |", "|---|---|---|---|"]
    for kind in KINDS:
        for row in built_in(kind):
            paper = row.spec.paper
            source = f"[{paper.year}](https://arxiv.org/abs/{paper.arxiv})" if paper and paper.arxiv else ""
            lines.append(f"| {kind} | `{row.name}` | {row.summary}{_notes(row.spec)} | {source} |")
    return _between(text, "components", lines)


def benchmarks(text):
    """`text` with the figures of the last run."""
    kept = json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8"))
    return _between(
        text, "results", ["", *results({n: found for n, found in kept.items() if n not in OF_PIPELINES}), ""]
    )


def pipelines(text):
    """`text` with what a distillation takes: as estimated, and as measured on each device that was at hand."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    for benchmark, mark in OF_PIPELINES.items():
        lines = []
        for found in (file[benchmark] for file in kept if benchmark in file):
            lines += [*tables(found), "", f"Taken at {taken(found)}.", ""]
        text = _between(text, mark, lines)
    return text


def catalogue(_):
    """A page with every component: what its spec declares, its options, its paper."""
    lines = [
        "# The catalogue",
        "",
        "What comes with advloss, from its specs. `advloss list` shows what is installed where you are, plugins of others "
        "among it; `advloss show NAME` says the same as this page, and `advloss cite NAME...` prints BibTeX.",
    ]
    for kind in KINDS:
        lines += ["", f"## {PLURAL.get(kind, kind.title() + 's')}"]
        for row in built_in(kind):
            options = {n: p for n, p in options_of(load_target(row)).items() if n != "self"}
            given = ", ".join(
                f"`{n}={p.default!r}`" if p.default is not p.empty else f"`{str(p).partition(':')[0]}`"
                for n, p in options.items()
            )
            lines += ["", f"### {kind} `{row.name}`" if _is_shared(row) else f"### `{row.name}`", "", row.summary]
            lines += ["", f"- options: {given or 'none'}", *(f"- {line}" for line in _declares(row.spec))]
            if row.spec.paper:
                paper = row.spec.paper
                source = f", [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
                lines.append(f"- {paper.title} ({paper.year}){source}")
    return "\n".join(lines) + "\n"


def combinations(_):
    """A page with every rule of combination."""
    lines = [
        "# Combinations",
        "",
        "What cannot work is refused with the nearest combination that can. Some are refused when an adversary is "
        "*built* (`CombinationError`), the others when it is *called* with samples, before any state changes.",
        "",
        "| when | refused | instead |",
        "|---|---|---|",
    ]
    lines += [f"| {'built' if rule.broken else 'called'} | {rule.refuses} | {rule.instead} |" for rule in RULES]
    lines += [
        "",
        "Allowed, but not exact under gradient accumulation: components that declare `batch_coupled` (batch norm, "
        "minibatch standard deviation, the relativistic average loss, DRAGAN). They see a micro-batch, not the batch.",
    ]
    return "\n".join(lines) + "\n"


def doctor(text):
    """`text` with its two tables made anew."""
    rows = ["| cause | sign | fix | next run |", "|---|---|---|---|"]
    rows += [f'| <a id="{c.name}"></a>{c.title} (`{c.name}`) | {c.looks_at} | {c.fix} | {c.protocol} |' for c in CAUSES]
    numbers = ["| number | healthy | |", "|---|---|---|"]
    numbers += [f"| `{n}` | {healthy} | {_first_sentence(getattr(Facts, n))} |" for n, healthy in NUMBERS.items()]
    return _between(_between(text, "causes", rows), "numbers", numbers)


PAGES = {
    "README.md": readme,
    "docs/benchmarks.md": benchmarks,
    "docs/catalogue.md": catalogue,
    "docs/combinations.md": combinations,
    "docs/doctor.md": doctor,
    "docs/pipelines.md": pipelines,
}


def _between(text, name, lines):
    """`text` with `lines` between the marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, _, rest = text.partition(begin)
    return "\n".join([f"{head}{begin}", *lines, f"{end}{rest.partition(end)[2]}"])


def _first_sentence(described):
    return " ".join(inspect.getdoc(described).split("\n\n")[0].split()).rstrip(".")


def _notes(spec):
    notes = []
    if isinstance(spec, DiscriminatorSpec) and spec.conditions:
        notes.append("conditions: " + ", ".join(spec.conditions))
    if spec.extra:
        notes.append(f"needs `advloss[{spec.extra}]`")
    return f" ({'; '.join(notes)})" if notes else ""


def _is_shared(row):
    return sum(other.name == row.name for other in list_components()) > 1


def _declares(spec):
    """What a spec says, in words."""
    if isinstance(spec, DiscriminatorSpec):
        yield (
            f"samples: dimensions {', '.join(map(str, spec.dims))}; "
            + (
                "any values"
                if spec.value_range is None
                else f"values from {spec.value_range[0]:g} to {spec.value_range[1]:g}"
            )
            + (
                f"; sides of exactly {spec.smallest}, or as built"
                if spec.fixed_size
                else f"; sides from {spec.smallest}"
            )
        )
        yield f"logits: {spec.output}" + (", batch coupled" if spec.batch_coupled else "")
        yield f"conditions: {', '.join(spec.conditions) or 'none'}"
        yield (
            f"double backward: {_yes(spec.double_backward)}; torch.compile: {_yes(spec.compiles)}; frozen features: "
            + (f"{_yes(spec.features)}; pretrained: {_yes(spec.pretrained)}")
        )
    elif isinstance(spec, LossSpec):
        at = "any" if spec.equilibrium is None else f"{spec.equilibrium:g}"
        yield f"paired: {_yes(spec.paired)}; batch coupled: {_yes(spec.batch_coupled)}; logit at equilibrium: {at}"
        if spec.regularizers:
            brought = [f"`{name.rpartition('/')[2]}` {dict(options)}" for name, options in spec.regularizers.items()]
            yield f"brings: {', '.join(brought)}"
    elif isinstance(spec, RegularizerSpec):
        slope = "none" if spec.slope is None else f"{spec.slope:g}"
        yield f"second order: {_yes(spec.second_order)}; batch coupled: {_yes(spec.batch_coupled)}; target slope: {slope}"
    elif isinstance(spec, AugmentationSpec):
        yield f"dimensions: {', '.join(map(str, spec.dims))}"
    if spec.extra:
        yield f"needs `pip install 'advloss[{spec.extra}]'`"


def _yes(value):
    return "yes" if value else "no"


def main():
    stale = []
    for name, page in PAGES.items():
        path = ROOT / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = page(old)
        if new != old and "--check" in sys.argv:
            stale.append(name)
        elif new != old:
            path.write_text(new, encoding="utf-8")
    return f"{', '.join(stale)}: stale; run python docs/tables.py" if stale else 0


if __name__ == "__main__":
    sys.exit(main())
