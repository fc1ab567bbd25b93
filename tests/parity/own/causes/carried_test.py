"""State that something changed between two steps: what did is told to the bit."""

import pytest
import torch

from tests.parity.own.small_net import OWN, adamw, judged, record


def between_steps(act, at=2):
    """Changes parameters after the update of a step."""

    def after(net, made, step):
        if step == at:
            with torch.no_grad():
                for number, param in enumerate(net.parameters()):
                    act(param, number)

    return after


class Reload:
    """Puts back what the parameters were before step 1."""

    def __call__(self, net, made, step):
        params = [param.data for param in net.parameters()]
        if step == 0:
            self.held = [param.clone() for param in params]
        if step == 2:
            for param, held in zip(params, self.held):
                param.copy_(held)


class Average:
    """Swaps averages in."""

    def __init__(self):
        self.means = {}

    def __call__(self, net, made, step):
        with torch.no_grad():
            for name, param in net.named_parameters():
                mean = self.means.setdefault(name, param.clone())
                mean.lerp_(param, 0.1)
                if step == 2:
                    param.copy_(mean)


def forget(net, made, step):
    if step == 2:
        for state in made.state.values():
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()


def rebuild(net, made, step):
    if step == 2:
        made.state.clear()


def told(folder, **planted):
    (best,) = judged(record(folder / "t", **planted), OWN).explanations
    return best


CASES = {
    "weights_reloaded": Reload,
    "weights_clipped": lambda: between_steps(lambda p, n: p.clamp_(-0.5, 0.5)),
    "changed_between_steps": Average,
    "moments_reset": lambda: forget,
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_done_is_named(tmp_path, name):
    best = told(tmp_path, after=CASES[name]())
    assert best.label == name
    assert best.explains
    assert best.text.startswith("between steps 2 and 3 ")
    assert "hidden.weight" in best.text


def test_an_optimizer_that_is_built_again(tmp_path):
    best = told(tmp_path, after=rebuild)
    assert best.label == "moments_reset"
    assert best.explains


def test_it_is_a_part_where_updates_differ_too(tmp_path):
    def other(params):
        return adamw(params, betas=(0.9, 0.99))

    best = told(tmp_path, optimizer=other, after=Reload())
    assert best.label == "weights_reloaded + second_moment_decay"
    assert best.explains


def test_a_part_is_no_explanation(tmp_path):
    class Noisy(torch.optim.AdamW):
        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                for param in self.param_groups[0]["params"]:
                    param.add_(1e-4 * torch.randn_like(param))

    def noisy(params):
        return Noisy(params, lr=0.01, eps=1e-3, weight_decay=0.1)

    best = told(tmp_path, optimizer=noisy, after=Reload())
    assert best.names[0] == "weights_reloaded"
    assert not best.explains


OTHERS = {
    "one entry": lambda p, n: p.view(-1)[:1].mul_(0.5),
    "a bound for each tensor": lambda p, n: p.clamp_(-0.3 - 0.1 * n, 0.3 + 0.1 * n),
    "rounded": lambda p, n: p.copy_(p.bfloat16()),
    "a norm": lambda p, n: p.div_(p.norm()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_changes_are_not_called_clipping(tmp_path, name):
    best = told(tmp_path, after=between_steps(OTHERS[name]))
    assert best.label == "changed_between_steps"
