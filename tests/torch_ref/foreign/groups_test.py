"""Names of an optimizer's parameters, where ZeRO does not write them."""

import pytest
import torch

from jaxnn.experiment.errors import UserError
from tests.torch_ref.foreign.written import common, save
from torch_ref.foreign import groups, opening

VALUES = {
    "a.weight": torch.full((2, 2), 0.1),
    "a.bias": torch.full((2,), 0.2),
    "b.weight": torch.full((2, 2), 0.3),
    "b.bias": torch.full((2,), 0.4),
}


def opened(folder, optimizer, dtype=torch.float32, names=tuple(VALUES)):
    module = {name: VALUES[name].to(dtype) for name in names}
    model = common(module=module, buffer_names=[], param_shapes=None)
    return opening.open_anyones(save(folder / "c", model | {"optimizer": optimizer}))


def state_dict(sizes, shapes=(), **group):
    """Of groups of so many parameters; moments of these shapes."""
    numbers = iter(range(sum(sizes)))
    state = {n: {"exp_avg": torch.zeros(shape)} for n, shape in enumerate(shapes)}
    listed = [
        {"params": [next(numbers) for _ in range(size)], **group} for size in sizes
    ]
    return {"state": state, "param_groups": listed}


def names_of(checkpoint, given=None):
    return [list(group) for group in groups.of(checkpoint, given)]


def flat(*names):
    return torch.cat([VALUES[name].flatten() for name in names])


def test_one_group_is_the_model(tmp_path):
    assert names_of(opened(tmp_path, state_dict([4]))) == [list(VALUES)]


def test_shapes_of_moments_tell_groups_apart(tmp_path):
    sizes = [(2,), (2,), (2, 2), (2, 2)]
    found = names_of(opened(tmp_path, state_dict([2, 2], sizes)))
    assert found == [["a.bias", "b.bias"], ["a.weight", "b.weight"]]


def test_values_of_fused_masters_do(tmp_path):
    optimizer = {
        "fp32_groups_flat": [flat("b.weight", "b.bias"), flat("a.bias")],
        "optimizer_state_dict": state_dict([1, 1]),
    }
    checkpoint = opened(tmp_path, optimizer, torch.float16)
    assert names_of(checkpoint) == [["b.weight", "b.bias"], ["a.bias"]]


def test_values_of_single_masters_do(tmp_path):
    masters = [[VALUES["b.weight"], VALUES["b.bias"]], [VALUES["a.weight"]]]
    optimizer = {
        "fp32_groups": masters,
        "optimizer_state_dict": state_dict([2, 1]),
    }
    checkpoint = opened(tmp_path, optimizer, torch.bfloat16)
    assert names_of(checkpoint) == [["b.weight", "b.bias"], ["a.weight"]]


def test_names_that_torch_was_given(tmp_path):
    optimizer = state_dict([1], param_names=["b.weight"])
    assert names_of(opened(tmp_path, optimizer)) == [["b.weight"]]


def test_several_ways_are_refused_until_they_are_told(tmp_path):
    # One matrix of the two is frozen.
    checkpoint = opened(tmp_path, state_dict([1], [(2, 2)]))
    with pytest.raises(UserError, match="several parameters fit its groups; define"):
        names_of(checkpoint)
    assert names_of(checkpoint, [["b.weight"]]) == [["b.weight"]]
    with pytest.raises(UserError, match=r"groups: c\.weight is no parameter of"):
        names_of(checkpoint, [["c.weight"]])


def test_no_way_is_refused(tmp_path):
    optimizer = {
        "fp32_groups_flat": [flat("a.bias") + 1, flat("b.bias")],
        "optimizer_state_dict": state_dict([1, 1]),
    }
    with pytest.raises(UserError, match="no parameters fit its groups"):
        names_of(opened(tmp_path, optimizer, torch.float16))


def test_thousands_of_equal_parameters_take_no_time(tmp_path):
    module = {f"p{n}": torch.zeros(2 + n % 2) for n in range(2000)}
    sizes = [(2,)] * 1000 + [(3,)] * 1000
    model = common(module=module, buffer_names=[], param_shapes=None)
    model["optimizer"] = state_dict([1000, 1000], sizes)
    found = names_of(opening.open_anyones(save(tmp_path / "c", model)))
    assert found == [list(module)[::2], list(module)[1::2]]


def test_ties_are_one_parameter(tmp_path):
    weight = torch.ones(2, 2)
    model = common(
        module={"a": weight, "b": weight}, buffer_names=[], param_shapes=None
    )
    checkpoint = opening.open_anyones(
        save(tmp_path / "c", model | {"optimizer": state_dict([1])})
    )
    assert groups.ties(checkpoint) == {"b": "a"}
    assert names_of(checkpoint) == [["a"]]
