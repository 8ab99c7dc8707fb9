"""Claims with scales of their own, in one table: they stand beside those of claims/run.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kinolex.training.claims import (
    few_shot,
    lengths,
    model_scale,
    poets,
    semantics,
    super_resolution,
    sync,
    task_mix,
)
from kinolex.training.claims.lab import Say
from kinolex.training.claims.poet_claims import PoetClaim, reproduce_poets


class Run(Protocol):
    def __call__(
        self,
        scale: str,
        folder: Path,
        results: Path | None = None,
        *,
        device: str,
        command: str | None,
        workers: int,
        say: Say,
        data: Path | None = None,
    ) -> dict[str, Any]:
        """Test the claim, or go on where an earlier call stopped; scale is a name, the rest as in claims/run.py.

        Args:
            data: folder with one sub-folder per collection; most claims look at worlds alone.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Standalone:
    name: str
    statement: str
    costs: Callable[[str], dict[str, int]]
    """Of a scale: operations of training by what is trained; what claims share has one name."""
    run: Run


def _alone(
    scale_named: Callable[[str], Any], reproduce: Callable[..., dict[str, Any]], *, reads_data: bool = False
) -> Run:
    """A claim that trains one network after the other."""

    def run(
        scale: str,
        folder: Path,
        results: Path | None = None,
        *,
        device: str,
        command: str | None,
        workers: int,
        say: Say,
        data: Path | None = None,
    ) -> dict[str, Any]:
        how: dict[str, Any] = {"data": data} if reads_data else {}
        if reads_data and data is not None and command is not None:
            command += " --data DIR"
        return reproduce(scale_named(scale), folder, results, device=device, command=command, say=say, **how)

    return run


def _of_poets(claim: PoetClaim) -> Standalone:
    def costs(name: str) -> dict[str, int]:
        scale = poets.scale_named(name)
        return {repr(arm.config): len(scale.seeds) * poets.arm_flops(arm.config) for arm in claim.arms(scale)}

    def run(
        scale: str, folder: Path, results: Path | None = None, *, data: Path | None = None, **how: Any
    ) -> dict[str, Any]:
        return reproduce_poets(claim, poets.scale_named(scale), folder, results, **how)

    return Standalone(name=claim.told.name, statement=claim.told.statement, costs=costs, run=run)


STANDALONE: dict[str, Standalone] = {
    claim.name: claim
    for claim in (
        Standalone(
            name=semantics.NAME,
            statement=semantics.TOLD.statement,
            costs=lambda name: {semantics.NAME: semantics.probes_flops(semantics.scale_named(name))},
            run=_alone(semantics.scale_named, semantics.reproduce_semantics),
        ),
        Standalone(
            name=super_resolution.NAME,
            statement=super_resolution.TOLD.statement,
            costs=lambda name: {
                super_resolution.NAME: super_resolution.training_flops(super_resolution.scale_named(name))
            },
            run=_alone(super_resolution.scale_named, super_resolution.reproduce_super_resolution),
        ),
        _of_poets(task_mix.CLAIM),
        _of_poets(model_scale.CLAIM),
        Standalone(
            name=sync.NAME,
            statement=sync.TOLD.statement,
            costs=lambda name: {},
            run=_alone(sync.scale_named, sync.reproduce_sync),
        ),
        Standalone(
            name=lengths.NAME,
            statement=lengths.TOLD.statement,
            costs=lambda name: {},
            run=_alone(lengths.scale_named, lengths.reproduce_lengths),
        ),
        Standalone(
            name=few_shot.NAME,
            statement=few_shot.TOLD.statement,
            costs=lambda name: {},
            run=_alone(few_shot.scale_named, few_shot.reproduce_few_shot, reads_data=True),
        ),
    )
}
