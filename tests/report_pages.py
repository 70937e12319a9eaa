"""What the tests look at of a report's page."""

import re
from html.parser import HTMLParser


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What the tests look at of a page: tables, attributes of elements, text; and that what is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.tables, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += f" {data.strip()}"

    def with_tag(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def figures(cell: str) -> list[float]:
    """The numbers of a cell, in its order."""
    return [float(text.replace("−", "-")) for text in re.findall(r"(?<![\w.])[+−]?\d+(?:\.\d+)?", cell)]


def results_tables(page: Page, which: str | None = None) -> list[list[list[str]]]:
    """Tables of results: `main` ones, those of `all` systems and figures, or of each suite the one that has more."""
    by_suite: dict[str, dict[str, list]] = {}
    for table, attributes in zip(page.tables, page.with_tag("table"), strict=True):
        if "data-suite" in attributes:
            kind = "all" if attributes["class"] == "results all" else "main"
            by_suite.setdefault(attributes["data-suite"], {})[kind] = table
    if which:
        return [tables[which] for tables in by_suite.values() if which in tables]
    return [tables.get("all", tables["main"]) for tables in by_suite.values()]
