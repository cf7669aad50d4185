"""Trains the three networks of the preprocessing on simulated patterns and tests them on other crystal structures."""

import platform
import time
import traceback
from dataclasses import replace

import numpy as np
import torch

from fourdstem import device as devices
from fourdstem.methods.training import examining, objectives, structures, supply
from fourdstem.methods.training.fitting import Plan, fit, precise
from fourdstem.methods.training.settings import Params, Result
from fourdstem.networks import layers
from fourdstem.networks.weights import KINDS, VERSION
from fourdstem.schema import as_settings

__all__ = ["Params", "Result", "compute"]

_TEST_SHARE = 0.07  # of the time, for the tables
_EXAMPLES = 24


def compute(params: Params, device: str = "auto", log=None, keep=None, checkpoints=None, workers: int = 0) -> Result:
    """Train denoise, centre and ellipse, one after the other, and test each.

    Parameters
    ----------
    params : Params
    device : {"auto", "cpu", "cuda"}
    log : callable, optional
        Takes a line.
    keep : callable, optional
        Takes the `Result` so far, after each network, so that an end from outside costs one network only.
    checkpoints : str, optional
        Folder of checkpoints; a training goes on from those that it finds there.
    workers : int
        Processes that compute patterns; 0 = this one.

    Returns
    -------
    Result
        A network that failed is told of in ``failures``; the others are there.
    """
    start, log = time.monotonic(), log or (lambda line: None)
    supply.prepare()
    sets = _held_back(params, workers)
    source = supply.Supply(params.seed, workers)  # before the device wakes: processes are forked
    try:
        chosen = devices.pick(device)
        log(f"device {chosen} ({devices.describe(chosen)}), torch {torch.__version__}, {workers} processes")
        result = Result([], [], _card(params, chosen), {}, {}, {})
        session = _Session(params, chosen, log, source, sets, start, checkpoints)
        for kind, share in zip(KINDS, params.shares, strict=True):
            if share == 0:
                continue
            try:
                session.train(kind, result)
            except Exception as error:  # one network's trouble must not cost the others
                result.failures[kind] = f"{type(error).__name__}: {error}"
                log(f"{kind}: FAILED\n{traceback.format_exc()}")
            result.card["seconds"] = round(time.monotonic() - start, 1)
            result.card["failures"] = dict(result.failures)
            if keep is not None:
                keep(result)
    finally:
        source.close()
    return result


def _held_back(params: Params, workers: int) -> dict:
    """Patterns and scan means of validation and test, by share and whether they are means."""
    number = {False: params.held_back, True: max(params.held_back // 2, 8)}
    return {
        (share, means): supply.together(params.seed, share, number[means], means, workers)
        for share in ("validate", "test")
        for means in (False, True)
    }


def _card(params: Params, device: str) -> dict:
    shares = {s: [c.name for c in structures.of_share(s)] for s in ("train", "validate", "test")}
    return {
        "what": "networks of the preprocessing (denoise, centre, ellipse), trained on simulated patterns",
        "version": VERSION,
        "settings": as_settings(params),
        "structures": shares,
        "device": devices.describe(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "networks": {},
    }


class _Session:
    """What the training of the three networks has in common."""

    def __init__(self, params: Params, device: str, log, source, sets, start: float, checkpoints):
        self.params, self.device, self.log, self.source = params, device, log, source
        self.start, self.checkpoints = start, checkpoints
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
        self.sets = {k: tuple(torch.from_numpy(a).to(device) for a in v) for k, v in sets.items()}
        self.pools = {
            means: objectives.Pool(max(params.pool // (4 if means else 1), supply.CHUNK), supply.EXTRA, device)
            for means in (False, True)
        }
        self.lot = np.random.default_rng(params.seed)
        self.generator = torch.Generator(device).manual_seed(params.seed)

    def train(self, kind: str, result: Result) -> None:
        """Train and test one network, and write down both in the result."""
        means = kind == "ellipse"
        torch.manual_seed(self.params.seed)
        network = KINDS[kind]().to(self.device).to(memory_format=torch.channels_last)
        loss = getattr(objectives, f"{kind}_loss")
        draw = objectives.mean_batch if means else objectives.batch
        self._fill(means)
        validation = self._validation(draw, means)

        def next_batch(step):
            if step % 8 == 0 or self.source.everything_here:
                self._add(means, 768)
            if step % 8 == 4:
                self._add(not means, 128)
            return draw(self.pools[means], self.params.batch, self.generator, int(self.lot.integers(40)))

        plan = self._plan(kind)
        state = fit(kind, network, loss, next_batch, validation, plan, self.device, self.log)
        result.curves.extend(state.curve)
        result.weights[kind] = {k: v.detach().float().cpu() for k, v in network.state_dict().items()}
        result.card["networks"][kind] = {
            "parameters": layers.parameters_of(network),
            "steps": state.step,
            "seconds": round(state.elapsed, 1),
            "patterns seen": state.step * self.params.batch,
            "patterns made": self.pools[means].total,
            "loss on held-back structures": state.best,
        }
        self._test(kind, network.eval(), plan, result)

    def _plan(self, kind: str) -> Plan:
        share = dict(zip(KINDS, self.params.shares, strict=True))
        later = list(KINDS)[list(KINDS).index(kind) :]
        left = self.params.seconds * (1 - _TEST_SHARE) - (time.monotonic() - self.start)
        seconds = max(left, 1.0) * share[kind] / max(sum(share[k] for k in later), 1e-9)
        path = f"{self.checkpoints}/{kind}.pt" if self.checkpoints else None
        every = min(max(seconds / 20, 2.0), 300.0)
        plan = Plan(seconds, self.params.steps, self.params.rate, self.params.precision, every, 3 * every)
        return replace(plan, patience=self.params.patience, checkpoint=path)

    def _add(self, means: bool, most: int) -> None:
        for images, extras in self.source.take(means, most):
            self.pools[means].add(images, extras)

    def _fill(self, means: bool) -> None:
        """Wait until the pool is rich enough to begin with."""
        pool = self.pools[means]
        wanted = min(len(pool.images), max(8 * self.params.batch, 256))
        until = time.monotonic() + 0.1 * self.params.seconds
        while pool.total < wanted and (time.monotonic() < until or pool.total == 0):
            self._add(means, 4096)
            if not self.source.alive():
                raise RuntimeError("a process that computes patterns has ended")
            time.sleep(0 if self.source.everything_here else 0.02)
        self.log(f"{pool.total} {'scan means' if means else 'patterns'} at hand, {time.monotonic() - self.start:.0f} s")

    def _validation(self, draw, means: bool) -> list:
        data = self.sets["validate", means]
        pool = objectives.Pool(len(data[0]), supply.EXTRA, self.device)
        pool.add(*data)
        generator = torch.Generator(self.device).manual_seed(self.params.seed + 1)
        size = min(self.params.batch, 128)
        return [draw(pool, size, generator, 0) for _ in range(max(min(512, len(data[0])) // size, 1))]

    def _test(self, kind: str, network, plan: Plan, result: Result) -> None:
        def run():
            return precise(plan, self.device)

        begun, test = time.monotonic(), self.sets["test", kind == "ellipse"]
        if kind == "denoise":
            result.table.extend(
                examining.denoise_table(network, self.sets["validate", False], test, self.params.seed, run)
            )
            result.examples.update(self._examples(network, test, run))
        elif kind == "centre":
            result.table.extend(examining.centre_table(network, test, self.params.seed, run))
        else:
            result.table.extend(examining.ellipse_table(network, test, self.params.seed, run))
        self.log(f"{kind}: tested in {time.monotonic() - begun:.1f} s")

    @torch.no_grad()
    def _examples(self, network, test, run) -> dict[str, np.ndarray]:
        some = tuple(t[:_EXAMPLES] for t in test)
        out = {"centre_px": some[1][:, :2].cpu().numpy(), "radius_px": some[1][:, 2].cpu().numpy()}
        for dose in (1e3, 1e4):
            recorded, _ = examining.recorded_patterns(some, dose, self.params.seed + 5, 0, False)
            found = examining.network_denoised(network, recorded, run)
            for name, value in (("recorded", recorded.electrons), ("denoised", found), ("expected", recorded.expected)):
                out[f"{name}_{dose:.0e}"] = value[:, 0].float().cpu().numpy().astype(np.float16)
        return out
