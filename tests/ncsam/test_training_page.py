"""docs/training.md begins with lines that train, and with the numbers that they give."""

import re

import pytest


def test_the_first_lines_of_the_page_give_the_numbers_beneath_them(pytestconfig):
    page = (pytestconfig.rootpath / "docs/training.md").read_text()
    snippet, told = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)\n```", page, flags=re.S).groups()
    names = {}
    exec(compile(snippet, "training.md", "exec"), names)
    history = names["history"]
    assert f"epochs={history.epochs}" in told
    # rounding of another machine may move a sample or two
    for name in ("train_loss", "test_accuracy", "memorized"):
        (number,) = re.findall(rf"{name}=([\d.]+)", told)
        assert history.metrics[name][-1] == pytest.approx(float(number), abs=0.02), name
    assert f"{history.metrics['memorized'][-1]:.0%}" == "1%"


def test_each_metric_that_the_page_explains_is_one_of_the_history(pytestconfig):
    from ncsam import METRICS

    page = (pytestconfig.rootpath / "docs/training.md").read_text()
    table = page[page.index("| `history.metrics[...]`") : page.index("Here 1.2%")]
    assert set(re.findall(r"`(\w+)`", table)) <= set(METRICS)
