"""A diagnosis as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from html import escape

from advloss import __version__
from advloss._diagnosis import NUMBERS, Diagnosis
from advloss._plots import plot
from advloss._run_log import RunLog

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1.1rem; margin-bottom: 0 } p { margin: .3rem 0 } small, figcaption, svg text { color: #5b6675 }
svg { width: 100%; font: 10px system-ui, sans-serif } svg text { fill: #5b6675 } figure { margin: 0 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.2rem; margin: 1.5rem 0 }
td, th { text-align: left; padding: .1rem 1rem .1rem 0 }
"""

_PANELS: tuple[tuple[str, tuple[str, ...], tuple[float, float] | None], ...] = (
    ("accuracy", ("real_accuracy", "fake_accuracy", "signals/mixed_accuracy"), (0.6, 0.8)),
    ("mean logits", ("real_logits", "fake_logits"), None),
    ("losses", ("loss", "generator_loss"), None),
    ("gradient at the fakes", ("fake_grad_norm",), None),
    ("gradient of the discriminator", ("grad_norm",), None),
    ("distances over that of two reals", ("signals/diversity", "signals/class_diversity", "signals/distance"), None),
    ("coverage", ("signals/coverage",), None),
    ("values of fakes", ("signals/fake_low", "signals/fake_high", "signals/real_low", "signals/real_high"), None),
)


def page(log: RunLog, diagnosis: Diagnosis) -> str:
    """The HTML."""
    parts = [f"<h1>{escape(diagnosis.verdict.capitalize())}</h1>", f"<p><small>{escape(_source(log))}</small></p>"]
    parts += [f"<p>Note: {escape(note)}.</p>" for note in diagnosis.notes]
    for number, finding in enumerate(diagnosis.findings, 1):
        parts.append(
            f"<h2>{number}. {escape(finding.title)}</h2><p>{escape(finding.evidence)}.</p>"
            f"<p><b>Fix:</b> {escape(finding.fix)}</p><p><b>Next run:</b> {escape(finding.protocol)}</p>"
        )
    panels = [plot(title, {_short(n): log.values(n) for n in names}, band) for title, names, band in _PANELS]
    penalties = {_short(name): log.values(name) for name in log.columns if name.startswith("regularizers/")}
    parts.append(f'<div class="plots">{"".join([*panels, plot("regularizers", penalties)])}</div>')
    rows = [
        f"<tr><td>{escape(name)}</td><td>{value:.3g}</td><td>{escape(NUMBERS[name])}</td></tr>"
        for name, value in diagnosis.facts.items()
    ]
    parts.append(f"<table><tr><th>last quarter</th><th></th><th>healthy</th></tr>{''.join(rows)}</table>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<title>{escape(diagnosis.verdict)}: {escape(log.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _source(log: RunLog) -> str:
    about = ", ".join(str(log.about[name]) for name in ("discriminator", "loss") if log.about.get(name))
    return (
        f"{log.name}, steps {log.steps[0]:g} to {log.steps[-1]:g}{', ' + about if about else ''}; advloss {__version__}"
    )


def _short(name: str) -> str:
    return name.rpartition("/")[2]
