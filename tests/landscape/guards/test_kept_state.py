"""What a forward pass leaves in dicts, lists and sets of a model is seen, and taken out again."""

import pytest
import torch
from torch import nn

from landscape.guards.kept_state import KeptState


class Caching(nn.Module):
    """A model with containers in containers, some under two names."""

    def __init__(self):
        super().__init__()
        self.caches = {"of one": {}, "seen": [], "names": set()}
        self.of_one = self.caches["of one"]
        self.itself = {}
        self.itself["again"] = self.itself


CHANGES = {
    "an entry": lambda model: model.of_one.update(value=torch.ones(2)),
    "an entry by the other name": lambda model: model.caches["of one"].update(value=1),
    "an element": lambda model: model.caches["seen"].append(3),
    "a member": lambda model: model.caches["names"].add("x"),
    "another container": lambda model: model.caches.update({"of one": {}}),
    "a container that holds itself": lambda model: model.itself.update(more=2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen_each_time_and_undone_in_the_same_containers(change):
    model = Caching()
    state = KeptState.of(model)
    inner = model.of_one
    assert state.changed() == []
    for _ in range(2):
        change(model)
        assert state.changed()
        state.restore()
        assert state.changed() == []
        assert model.of_one is model.caches["of one"] is inner
        assert model.caches == {"of one": {}, "seen": [], "names": set()}
        assert list(model.itself) == ["again"]
        assert model.itself["again"] is model.itself
