"""Stand-ins for packages that are not installed."""

import copy

import pytest

from sglang_ic.cpu.optional import absent


def test_an_absent_name_can_be_mentioned_but_not_called():
    name = absent("torchvision.transforms")
    assert repr(name.Compose) == "<absent torchvision.transforms.Compose>"
    with pytest.raises(ImportError, match="torchvision.transforms.Compose was called"):
        name.Compose([])


def test_an_absent_name_has_no_dunder_attributes():
    name = absent("sgl_kernel")
    assert not hasattr(name, "__version__")
    assert repr(copy.copy(name)) == repr(name)
