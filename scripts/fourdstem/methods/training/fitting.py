"""The training loop: one for all three networks."""

import contextlib
import math
import os
import time
from dataclasses import dataclass, field

import torch

WARM_UP = 200  # steps


@dataclass
class Plan:
    """How long and how a network is trained.

    Attributes
    ----------
    seconds, steps : float, int
        What ends the training: a time, or a number of steps where ``steps`` is above 0.
    rate : float
        Highest learning rate.
    precision : {"bf16", "float32"}
    validate_every, checkpoint_every : float
        Seconds.
    patience : int
        Validations without improvement that end it; 0 = none do.
    checkpoint : str or None
        File that is written now and then, and gone on from where it is there.
    """

    seconds: float
    steps: int = 0
    rate: float = 1e-3
    precision: str = "bf16"
    validate_every: float = 10.0
    checkpoint_every: float = 30.0
    patience: int = 0
    checkpoint: str | None = None


@dataclass
class State:
    """Where a training stands: steps and seconds so far, the curve, and the best weights."""

    step: int = 0
    elapsed: float = 0.0
    curve: list = field(default_factory=list)
    best: float = math.inf
    weights: dict = field(default_factory=dict)


def fit(name: str, network, loss, next_batch, validation, plan: Plan, device: str, log) -> State:
    """Train a network.

    Parameters
    ----------
    name : str
        For the log.
    network : Module
        On the device; holds the best averaged weights in the end.
    loss : callable
        ``loss(network, batch, done)``, ``done`` from 0 to 1.
    next_batch : callable
        ``next_batch(step)``.
    validation : sequence
        Batches of held-back structures.
    plan : Plan
    device : str
    log : callable
        Takes a line.

    Returns
    -------
    State
    """
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-4, betas=(0.9, 0.98))
    state = _resume(network, optimiser, average, plan, log, name)
    start = time.monotonic() - state.elapsed
    marks = {"validate": state.elapsed + plan.validate_every, "checkpoint": state.elapsed + plan.checkpoint_every}
    running, stale, bad = None, 0, 0
    while (done := _done(state, plan)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * min(1, (state.step + 1) / WARM_UP) * (0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
        value, sound = _step(network, loss, next_batch(state.step), optimiser, done, plan, device)
        _average(average, network, state.step)
        state.step += 1
        state.elapsed = time.monotonic() - start
        last = _done(state, plan) >= 1
        if state.step % 10 and not last:  # asking the device for a number makes it wait
            continue
        bad = 0 if bool(sound) else bad + 1
        if bad > 20:
            raise FloatingPointError(f"{name}: the loss is not a number any more (step {state.step})")
        running = float(value) if running is None else 0.9 * running + 0.1 * float(value)
        if state.elapsed >= marks["validate"] or last:
            marks["validate"] = state.elapsed + plan.validate_every
            stale = _validate(name, network, average, loss, validation, state, plan, device, running, log, stale)
            if plan.patience and stale >= plan.patience:
                log(f"{name}: no improvement in {stale} validations, stopped")
                break
        if plan.checkpoint and (state.elapsed >= marks["checkpoint"] or last):
            marks["checkpoint"] = state.elapsed + plan.checkpoint_every
            _keep(network, optimiser, average, state, plan)
    network.load_state_dict(state.weights or average)
    return state


def precise(plan: Plan, device: str):
    """Return the context in which networks compute."""
    if plan.precision == "bf16":
        return torch.autocast(device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _done(state: State, plan: Plan) -> float:
    return state.step / plan.steps if plan.steps else state.elapsed / max(plan.seconds, 1e-9)


def _step(network, loss, batch, optimiser, done, plan, device):
    with precise(plan, device):
        value = loss(network, batch, done)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    size = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    sound = torch.isfinite(size)
    for p in network.parameters():  # a step that is not finite becomes none, without asking the device
        if p.grad is not None:
            p.grad = torch.where(sound, p.grad, torch.zeros_like(p.grad))
    optimiser.step()
    return value.detach(), sound


@torch.no_grad()
def _average(average: dict, network, step: int) -> None:
    keep = min(0.998, (1 + step) / (10 + step))
    now = network.state_dict()
    torch._foreach_lerp_([average[k] for k in average], [now[k] for k in average], 1 - keep)


@torch.no_grad()
def _validate(name, network, average, loss, validation, state, plan, device, running, log, stale) -> int:
    """Judge the averaged weights; returns how many validations ago the best was."""
    own = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(average)
    with precise(plan, device):
        value = sum(float(loss(network, batch, 1.0)) for batch in validation) / len(validation)
    if value < state.best or not state.weights:
        state.best, stale = value, 0
        state.weights = {k: v.clone() for k, v in average.items()}
    else:
        stale += 1
    network.load_state_dict(own)
    state.curve.append((name, state.step, round(state.elapsed, 2), running, value))
    rate = state.step / max(state.elapsed, 1e-9)
    left = (plan.steps - state.step) / max(rate, 1e-9) if plan.steps else plan.seconds - state.elapsed
    log(f"{name}: step {state.step}, {rate:.1f} steps/s, loss {running:.4f}, held back {value:.4f}, {left:.0f} s left")
    return stale


def _keep(network, optimiser, average, state: State, plan: Plan) -> None:
    told = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
    told |= {"step": state.step, "elapsed": state.elapsed, "curve": state.curve, "best": state.best}
    told["weights"] = state.weights
    torch.save(told, plan.checkpoint + ".part")
    os.replace(plan.checkpoint + ".part", plan.checkpoint)


def _resume(network, optimiser, average, plan: Plan, log, name: str) -> State:
    if not plan.checkpoint or not os.path.exists(plan.checkpoint):
        return State()
    told = torch.load(plan.checkpoint, map_location=next(network.parameters()).device, weights_only=True)
    network.load_state_dict(told["network"])
    optimiser.load_state_dict(told["optimiser"])
    for k in average:
        average[k].copy_(told["average"][k])
    log(f"{name}: goes on from step {told['step']}")
    return State(told["step"], told["elapsed"], [tuple(c) for c in told["curve"]], told["best"], told["weights"])
