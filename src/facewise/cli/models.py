"""``facewise models``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from facewise.cli.options import Verbose


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
    verbose: Verbose = 0,
) -> None:
    """List the installed models: size, licence, data and figures."""
    from facewise.models import list_models

    specs = list_models()
    if as_json:
        rows = [spec.to_dict() for spec in specs]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for spec in specs:
        typer.echo(f"{spec.name}@{spec.version}  {spec.size_bytes / 1e6:.1f} MB")
        typer.echo(f"  {spec.description}")
        typer.echo(f"  input    {spec.size_px} x {spec.size_px} px")
        typer.echo(f"  licence  {spec.licence}")
        typer.echo(f"  data     {'; '.join(spec.data)}")
        for name, figure in _lines(spec.figures):
            typer.echo(f"  {name:<32} {figure}")


def _lines(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Figures formatted for people: shares in per cent, years to two decimal places."""
    for name, figure in figures.items():
        if isinstance(figure, Mapping):  # coverage, by level and kind
            for level, kinds in figure.items():
                for kind, held in kinds.items():
                    size = held.get("mean_width_years", held.get("mean_size"))
                    unit = "years" if "mean_width_years" in held else "labels"
                    told = f"{held['coverage']:.1%}, {size:.1f} {unit} on average"
                    yield f"{kind.replace('_', ' ')} at {float(level):.0%} hold", told
        elif isinstance(figure, float):
            is_share = not name.endswith("years")
            yield name.replace("_", " "), f"{figure:.1%}" if is_share else f"{figure:.2f}"
        else:
            yield name.replace("_", " "), str(figure)
