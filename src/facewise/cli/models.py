"""``facewise models``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List the installed models: size, licence, data and figures."""
    from facewise.models import list_models

    specs = list_models()
    if as_json:
        rows = [
            {
                "name": spec.name,
                "version": spec.version,
                "sha256": spec.sha256,
                "description": spec.description,
                "size_bytes": spec.size_bytes,
                "size_px": spec.size_px,
                "licence": spec.licence,
                "data": list(spec.data),
                "figures": dict(spec.figures),
            }
            for spec in specs
        ]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for spec in specs:
        typer.echo(f"{spec.name}@{spec.version}  {spec.size_bytes / 1e6:.1f} MB")
        typer.echo(f"  {spec.description}")
        typer.echo(f"  input    {spec.size_px} x {spec.size_px} px")
        typer.echo(f"  licence  {spec.licence}")
        typer.echo(f"  data     {'; '.join(spec.data)}")
        for name, figure in spec.figures.items():
            typer.echo(f"  {name:<32} {figure}")
