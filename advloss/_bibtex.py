"""Papers as BibTeX."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from advloss.specs import Paper

_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ß": "ss", "æ": "ae", "œ": "oe"}
)  # those that are no letter + accent


def bibliography(papers: Iterable[Paper]) -> str:
    """Entries, one a paper; keys that would be the same end in b, c, ... from the second on."""
    times = Counter[str]()
    entries = []
    for paper in {paper.arxiv or (paper.title, paper.year): paper for paper in papers}.values():
        key = _key(paper)
        entries.append(_entry(key + "abcdefghijklmnopqrstuvwxyz"[times[key]] if times[key] else key, paper))
        times[key] += 1
    return "\n\n".join(entries)


def _key(paper: Paper) -> str:
    """Surname, year and first word of the title, as `goodfellow2014generative`."""
    surname = paper.authors.partition(",")[0]
    word = next((w for w in paper.title.split() if w.lower() not in ("a", "an", "the", "on")), "")
    return f"{_ascii(surname)}{paper.year}{_ascii(word)}"


def _ascii(text: str) -> str:
    """Letters and digits without accents: old BibTeX takes no others in a key."""
    plain = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    return "".join(c for c in plain if c.isascii() and c.isalnum())


def _entry(key: str, paper: Paper) -> str:
    lines = {"title": paper.title, "author": paper.authors, "year": str(paper.year)}
    if paper.arxiv:
        lines.update(eprint=paper.arxiv, archiveprefix="arXiv")
    if paper.url:
        lines["url"] = paper.url
    return "@misc{" + key + ",\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items()) + "\n}"
