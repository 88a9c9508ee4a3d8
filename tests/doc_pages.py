"""The pages in docs/ and their tables, as the tests read them."""

import re
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[1] / "docs"


def page_named(name):
    """The text of a page."""
    return (DOCS / f"{name}.md").read_text()


def sentences_of(name):
    """The text of a page on one line, in which sentences are found wherever their lines break."""
    return " ".join(page_named(name).split())


def rows_marked(mark):
    """The rows of the table below a mark, such as <!-- quick-results -->, which one page of findings has."""
    (page,) = [
        text for path in DOCS.glob("findings/*.md") if f"<!-- {mark} -->" in (text := path.read_text())
    ]
    (table,) = re.findall(rf"<!-- {mark} -->\n(.*?)\n\n", page, flags=re.S)
    return table.splitlines()


def table_named(name):
    return pd.read_csv(DOCS / f"tables/{name}.csv")


def redrawn_less_fixed(study, *measures):
    """What SGD's redrawn labels change against fixed ones in these measures, from a study's table of verdicts."""
    estimates = table_named(f"{study}-verdicts").set_index("effect")["estimate"]
    signs = {measure: ">" if "accuracy" in measure else "<" for measure in measures}
    return [
        estimates[f"{name}, SGD: redrawn labels less fixed ones {sign} 0"] for name, sign in signs.items()
    ]


def rows_under(page, heading):
    """Header and rows of the first table below a bold heading."""
    lines = page.split(f"**{heading}**")[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next((n for n, line in enumerate(lines) if n > first and not line.startswith("|")), len(lines))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:end]]
    return table[0], table[2:]


def assert_said(said):
    """The pages of docs/, by name, hold these words, wherever their lines break."""
    for name, numbers in said.items():
        page = sentences_of(name)
        for number in numbers:
            assert number in page, (name, number)
