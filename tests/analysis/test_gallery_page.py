"""Every snippet of docs/gallery.md runs, on the folder of a study."""

import re
import shutil

import pytest
from matplotlib.figure import Figure

import figures

pytestmark = pytest.mark.usefixtures("quick_judgements")


def test_every_picture_is_drawn_by_the_code_beside_it(finished, tmp_path, monkeypatch, pytestconfig):
    shutil.copytree(finished[1], tmp_path / "results/quick")
    monkeypatch.chdir(tmp_path)
    drawn = []
    for name in set(figures.__all__) - {"ONE_COLUMN", "TWO_COLUMNS", "Animation", "Panel", "Style"}:
        function = getattr(figures, name)
        monkeypatch.setattr(figures, name, lambda *a, _f=function, **k: drawn.append(_f(*a, **k)))
    page = (pytestconfig.rootpath / "docs/gallery.md").read_text()
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(compile(snippet, "gallery.md", "exec"), names)
    assert len(drawn) == 12
    assert all(isinstance(figure, Figure) for figure in drawn)
