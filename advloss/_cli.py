"""The command line: ``advloss list|show|cite``. Listing imports no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, get_args

from advloss import __version__
from advloss._registry import OK, Entry, list_components, unknown
from advloss.errors import AdvlossError, UnknownComponentError
from advloss.specs import Kind, Paper, Spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 after an error that is printed in one line."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except AdvlossError as error:
        print(f"advloss: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `advloss list | head`
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="advloss", description="Adversarial losses as plugins.")
    parser.add_argument("--version", action="version", version=f"advloss {__version__}")
    commands = parser.add_subparsers(required=True, metavar="list|show|cite")

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

    cite = commands.add_parser("cite", help="BibTeX of the papers behind components")
    cite.add_argument("names", nargs="+", metavar="name")
    cite.set_defaults(run=_cite)
    return parser


def _list(given: argparse.Namespace) -> None:
    rows = list_components(given.kind, given.pattern)
    if given.json:
        print(json.dumps([_row(row) for row in rows], indent=2))
    elif rows:
        table = [("KIND", "NAME", "PLUGIN", "SUMMARY")]
        table += [(r.kind, r.name, r.plugin, r.summary if r.status == OK else f"! {r.status}") for r in rows]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        for row in table:
            print(*(cell.ljust(width) for cell, width in zip(row, widths)), row[3], sep="  ")
    else:
        raise UnknownComponentError(f"no {given.kind or 'component'} matches {given.pattern!r}")


def _show(given: argparse.Namespace) -> None:
    from advloss._create import load_target, options_of

    shown = []
    for row in _named(given.name, given.kind):
        description = _row(row)
        if row.spec is not None:
            description["declares"] = _declared(row.spec)
        if row.status == OK:
            options = options_of(load_target(row)).values()
            description["options"] = {p.name: "required" if p.default is p.empty else repr(p.default) for p in options}
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
    papers: dict[str, Paper] = {}
    for name in given.names:
        for row in _named(name, None):
            if row.spec is not None and row.spec.paper is not None:
                papers[_key(row.spec.paper)] = row.spec.paper
    if not papers:
        raise UnknownComponentError(f"no paper stands behind {', '.join(given.names)}")
    print("\n\n".join(_bibtex(key, paper) for key, paper in papers.items()))


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
    declared = {name: value for name, value in asdict(spec).items() if name not in ("name", "summary", "paper")}
    if spec.paper is not None:
        paper = spec.paper
        declared["paper"] = f"{paper.title} ({paper.year})" + (f", arXiv:{paper.arxiv}" if paper.arxiv else "")
    return declared


def _key(paper: Paper) -> str:
    surname = "".join(c for c in paper.authors.partition(",")[0].lower() if c.isalnum())
    word = next((w for w in paper.title.split() if w.lower() not in ("a", "an", "the", "on")), "")
    return f"{surname}{paper.year}{''.join(c for c in word.lower() if c.isalnum())}"


def _bibtex(key: str, paper: Paper) -> str:
    lines = {"title": paper.title, "author": paper.authors, "year": str(paper.year)}
    if paper.arxiv:
        lines.update(eprint=paper.arxiv, archiveprefix="arXiv")
    if paper.url:
        lines["url"] = paper.url
    return "@misc{" + key + ",\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items()) + "\n}"
