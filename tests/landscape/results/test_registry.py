import dataclasses

import pytest

from landscape import load, save
from landscape.results.fields import described
from landscape.results.registry import RESULT_CLASSES, result


def declared(name):
    return result(type(name, (), {"__annotations__": {"value": "float"}, "value": described("a number")}))


def test_a_declared_class_is_frozen_and_is_saved_and_loaded(tmp_path):
    made = declared("OfATest")(1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.value = 2.0
    save(tmp_path / "file.h5", "name", made)
    assert load(tmp_path / "file.h5", "name") == made
    del RESULT_CLASSES["OfATest"]


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="^result: the name Surface belongs to a class of landscape"):
        declared("Surface")
