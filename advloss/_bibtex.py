"""A paper as BibTeX."""

from __future__ import annotations

from advloss.specs import Paper


def key(paper: Paper) -> str:
    """Surname, year and first word of the title, as `goodfellow2014generative`."""
    surname = "".join(c for c in paper.authors.partition(",")[0].lower() if c.isalnum())
    word = next((w for w in paper.title.split() if w.lower() not in ("a", "an", "the", "on")), "")
    return f"{surname}{paper.year}{''.join(c for c in word.lower() if c.isalnum())}"


def bibtex(paper: Paper) -> str:
    """An entry."""
    lines = {"title": paper.title, "author": paper.authors, "year": str(paper.year)}
    if paper.arxiv:
        lines.update(eprint=paper.arxiv, archiveprefix="arXiv")
    if paper.url:
        lines["url"] = paper.url
    return (
        "@misc{" + key(paper) + ",\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items()) + "\n}"
    )
