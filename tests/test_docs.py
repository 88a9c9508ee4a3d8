"""Every snippet of the pages in docs/ runs, and what they point at exists."""

import re

import pytest

from analysis.claims import claim

PAGES = (
    *("benchmarks/curvature.md", "benchmarks/surfaces.md", "benchmarks/training.md"),
    *("findings/explanations.md", "findings/flatness.md", "findings/quick.md", "findings/redrawn-labels.md"),
    *("findings/text-and-people.md", "findings/the-method.md", "findings/what-changed.md"),
    *(
        "along-training.md",
        "any-batch.md",
        "answer.md",
        "baselines.md",
        "claims.md",
        "curvature.md",
        "findings.md",
        "install.md",
        "gpu.md",
        "moving.md",
        "own_parts.md",
        "quickstart.md",
        "results.md",
        "scale.md",
        "studies.md",
        "surfaces.md",
        "training.md",
        "verdict-errors.md",
        "wrong-labels.md",
    ),
    "index.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run_in_the_order_of_the_page(page, pytestconfig, tmp_path, monkeypatch):
    text = (pytestconfig.rootpath / "docs" / page).read_text()
    monkeypatch.chdir(tmp_path)
    # a page may register claims of its own
    monkeypatch.setattr(claim, "CLAIMS", dict(claim.CLAIMS))
    names = {}
    # in moving.md the right column of every table is our code too
    cells = r"|^\|[^\n]* \| `([^`|\n]+)` \|$" if page == "moving.md" else r"|(?!)()"
    for block, cell in re.findall(rf"```python\n(.*?)```{cells}", text, flags=re.S | re.M):
        exec(compile(block or cell, page, "exec"), names)


def test_every_page_is_tested_and_points_at_what_exists(pytestconfig):
    folder = pytestconfig.rootpath / "docs"
    pages = [*folder.glob("*.md"), *folder.glob("benchmarks/*.md"), *folder.glob("findings/*.md")]
    # the gallery reads the folder of a study: tests/analysis/test_gallery_page.py
    assert sorted(str(path.relative_to(folder)) for path in pages) == sorted([*PAGES, "gallery.md"])
    for page in pages:
        for name, anchor in re.findall(r"\]\((?!https?:|#)([^)#]+)#?([^)]*)\)", page.read_text()):
            target = (page.parent / name).resolve()
            assert target.exists(), (page, name)
            assert not anchor or anchor in headings(target), (page, name, anchor)


def headings(page):
    """What the headings of a page are called in links to them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_site_leads_to_every_page(pytestconfig):
    folder = pytestconfig.rootpath / "docs"
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (folder / "index.md").read_text(), flags=re.S)
    named = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    sources = [*folder.rglob("*.md"), *folder.glob("notebooks/*.py")]
    pages = {str(path.relative_to(folder).with_suffix("")) for path in sources}
    assert named == pages - {"index"}
