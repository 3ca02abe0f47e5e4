"""The command line: ``advloss list|show|check|new|cite|doctor``. Listing imports no torch."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from advloss import __version__
from advloss._bibtex import bibliography
from advloss._registry import OK, Entry, list_components, shared_names, unknown
from advloss.errors import AdvlossError, OptionError, UnknownComponentError
from advloss.specs import Kind, Paper, Spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 after an error that is printed in one line, or a check that failed."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return given.run(given) or 0
    except AdvlossError as error:
        print(f"advloss: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `advloss list | head`
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="advloss", description="Adversarial losses as plugins.")
    parser.add_argument("--version", action="version", version=f"advloss {__version__}")
    commands = parser.add_subparsers(required=True, metavar="list|show|check|new|cite|doctor")

    listing = commands.add_parser("list", help="the components that are installed")
    listing.add_argument("pattern", nargs="?", default="*", help="a name or shell-style pattern")
    listing.add_argument("--kind", choices=get_args(Kind))
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="what one component can do, and its options")
    show.add_argument("name", help="short name, or plugin/name")
    show.add_argument("--kind", choices=get_args(Kind))
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)

    check = commands.add_parser("check", help="run the conformance kit on an installed plugin or component")
    check.add_argument("name", help="a plugin, or a component's short or full name")
    check.add_argument("--kind", choices=get_args(Kind))
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)

    new = commands.add_parser("new", help="write a plugin of your own: a complete distribution")
    new.add_argument("name", help="lower case; 'wavelet' makes the distribution advloss-wavelet")
    new.add_argument("--folder", type=Path, help="where to write it (default: advloss-NAME)")
    new.set_defaults(run=_new)

    cite = commands.add_parser("cite", help="BibTeX of the papers behind components")
    cite.add_argument("names", nargs="+", metavar="name")
    cite.set_defaults(run=_cite)

    doctor = commands.add_parser(
        "doctor", help="versions, and plugins that cannot be used; with a run's log, what is wrong with the run"
    )
    doctor.add_argument(
        "run_log", nargs="?", type=Path, metavar="RUN", help="a JSON-lines log, or a folder with log.jsonl"
    )
    doctor.add_argument("--samples", type=Path, help="of the generator: a folder of pictures, .npy or .safetensors")
    doctor.add_argument("--data-size", type=int, help="number of samples in the data set")
    doctor.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots as well")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor)
    return parser


def _list(given: argparse.Namespace) -> None:
    rows = list_components(given.kind, given.pattern)
    notes = {key: f"! short name shared: write {' or '.join(names)}" for key, names in shared_names().items()}
    if given.json:
        print(json.dumps([_row(row) for row in rows], indent=2))
    elif rows:
        table = [("KIND", "NAME", "PLUGIN", "SUMMARY")]
        for r in rows:
            said = (r.summary, notes.get((r.kind, r.name))) if r.status == OK else (f"! {r.status}",)
            table.append((r.kind, r.name, r.plugin, "  ".join(filter(None, said))))
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        for row in table:
            print(*(cell.ljust(width) for cell, width in zip(row, widths)), row[3], sep="  ")
    else:
        raise UnknownComponentError(f"no {given.kind or 'component'} matches {given.pattern!r}")


def _option(parameter: inspect.Parameter) -> tuple[str, str]:
    """An option's name, and its default."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{parameter.name}", "further ones"
    return parameter.name, "required" if parameter.default is parameter.empty else repr(parameter.default)


def _show(given: argparse.Namespace) -> None:
    from advloss._create import load_target, options_of

    shown = []
    for row in _named(given.name, given.kind):
        description = _row(row)
        if row.spec is not None:
            description["declares"] = _declared(row.spec)
        if row.status == OK:
            with redirect_stdout(sys.stderr):  # whatever its module prints
                options = options_of(load_target(row)).values()
            description["options"] = dict(map(_option, options))
        shown.append(description)
    if given.json:
        print(json.dumps(shown, indent=2))
        return
    for description in shown:
        print(f"{description['kind']} {description['plugin']}/{description['name']} ({description['distribution']})")
        print(f"  {description['summary']}")
        if description["status"] != OK:
            print(f"  status: {description['status']}")
        for title in ("options", "declares"):
            if description.get(title):
                print(f"  {title}:")
                width = max(map(len, description[title]))
                for name, value in description[title].items():
                    print(f"    {name.ljust(width)}  {value}")


def _cite(given: argparse.Namespace) -> None:
    papers: list[Paper] = []
    without = []
    for name in given.names:
        found = [row.spec.paper for row in _named(name, None) if row.spec is not None]
        papers += (cited := [paper for paper in found if isinstance(paper, Paper)])
        without += [] if cited else [name]
    if without:
        none = UnknownComponentError(f"no paper stands behind {', '.join(without)}")
        if not papers:
            raise none
        print(f"advloss: {none}", file=sys.stderr)
    print(bibliography(papers))


def _check(given: argparse.Namespace) -> int:
    from advloss._check import run_checks

    return run_checks(given.name, given.kind, as_json=given.json)


def _new(given: argparse.Namespace) -> None:
    from advloss._new import write_plugin

    folder = given.folder or Path(f"advloss-{given.name}")
    for path in write_plugin(given.name, folder):
        print(path)
    print(f"\ncd {folder} && pip install -e '.[test]' && pytest && advloss check {given.name}")


def _doctor(given: argparse.Namespace) -> int:
    if given.run_log is None:
        if given.samples or given.html or given.data_size is not None:
            raise OptionError("--samples, --data-size and --html are about a run: advloss doctor RUN ...")
        from advloss._doctor import report

        return report(as_json=given.json)
    from advloss._consult import consult

    return consult(given.run_log, given.samples, given.data_size, page_file=given.html, as_json=given.json)


def _named(name: str, kind: Kind | None) -> list[Entry]:
    """All rows of this short or full name: a loss and a recipe may share one."""
    rows = list_components(kind)
    named = [row for row in rows if name in (row.name, row.full_name)]
    if not named:
        raise unknown(kind or "component", name, rows)
    return named


def _row(row: Entry) -> dict[str, Any]:
    return {f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("spec", "target")}


def _declared(spec: Spec) -> dict[str, Any]:
    """What the spec says beyond its name and summary, as it prints."""
    names = [f.name for f in fields(spec) if f.name not in ("name", "summary", "paper")]
    declared = {name: _plain(getattr(spec, name)) for name in names}
    paper = spec.paper
    if isinstance(paper, Paper):  # a spec for another version of the API may have something else there
        declared["paper"] = f"{paper.title} ({paper.year})" + (f", arXiv:{paper.arxiv}" if paper.arxiv else "")
    return declared


def _plain(value: Any) -> Any:
    """`value` as JSON has it; what it has not, as Python writes it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item) for item in value)
    return value if value is None or isinstance(value, (str, int, float)) else repr(value)
