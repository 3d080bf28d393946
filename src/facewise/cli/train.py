"""``facewise train``, ``facewise teach`` and ``facewise export``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.options import Verbose, local_path, speak
from facewise.errors import OptionError, needs_extra

CACHE = Path("cache/faces")
CACHE_HELP = "Folder of decoded faces and landmarks; converted weights are beside it."
RUNS = Path("runs")
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Use this seed instead of the file's; the run is called NAME-seedN."),
]


def _need_extra() -> None:
    with needs_extra("training", "train"):
        import pydantic  # noqa: F401
        import torch  # noqa: F401


def train(
    config: Annotated[
        Path, typer.Option(help="TOML file with everything that shapes the weights.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            envvar="FACEWISE_DATA",
            parser=local_path,
            metavar="PATH",
            help="Folder of the data sets, or a CSV of path and labels.",
        ),
    ] = Path("../shared/data"),
    split_list: Annotated[
        Path | None,
        typer.Option(
            "--splits",
            parser=local_path,
            metavar="FILE.csv",
            help="CSV with columns file (or path) and split, as written by facewise dedupe; "
            "replaces the data's own splits.",
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help=CACHE_HELP)] = CACHE,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = RUNS,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes for augmentation; 0: augment in the training process."),
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many minutes.")
    ] = None,
    seed: Seed = None,
    verbose: Verbose = 0,
) -> None:
    """Train a model, or resume its run."""
    _need_extra()
    from facewise.data.folder import read_folder, with_splits
    from facewise.training.cache import build_cache, fingerprint
    from facewise.training.checks import check_run, check_samples, check_splits
    from facewise.training.config import load_config
    from facewise.training.train import train as run

    speak()
    settings = load_config(config, seed=seed)
    sets = read_folder(data)
    if split_list is not None:
        sets = with_splits(sets, split_list)
    for data_set in sets:
        for name, reason in data_set.skipped:
            logging.getLogger("facewise").info("skipped %s: %s", name, reason)
    check_splits(sets, settings.datasets)
    # Checked first: building the cache takes minutes and replaces the previous one.
    check_run(settings, runs / settings.name, converted=cache.parent, fingerprint=fingerprint(sets))
    check_samples(settings, [s for data_set in sets for s in data_set.samples])
    build_cache(cache, sets)
    folder = run(
        settings,
        cache_folder=cache,
        runs_folder=runs,
        workers=workers,
        threads=threads,
        minutes=minutes,
    )
    typer.echo(str(folder))


def teach(
    configs: Annotated[list[Path], typer.Argument(help="TOML files of finished runs.")],
    out: Annotated[Path, typer.Option(help="The .npz file to write, which loss.teacher names.")],
    cache: Annotated[Path, typer.Option(help="Folder of decoded faces and landmarks.")] = CACHE,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = RUNS,
    one_view: Annotated[
        bool, typer.Option("--one-view", help="Use one view of each face, not six.")
    ] = False,
    frozen_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Weight of heads on frozen pretrained networks; the runs have the rest.",
        ),
    ] = 0.0,
    verbose: Verbose = 0,
) -> None:
    """Write the answers of finished runs on the training faces, averaged over views."""
    _need_extra()
    from facewise.training.cache import open_cache
    from facewise.training.checks import check_checkpoint
    from facewise.training.config import load_config
    from facewise.training.teach import ONE_VIEW, SIX_VIEWS, write_teacher

    speak()
    if out.suffix != ".npz":
        raise OptionError(f"--out {out}: the file's name must end in .npz")
    members = [
        (settings, runs / settings.name / "best.pt") for settings in map(load_config, configs)
    ]
    for settings, best in members:
        check_checkpoint(settings, best)
    views = ONE_VIEW if one_view else SIX_VIEWS
    write_teacher(members, open_cache(cache), out, views, frozen_share=frozen_share)
    typer.echo(str(out))


def export(
    config: Annotated[Path, typer.Option(help="The run's TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the ONNX file and its spec.")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    description: Annotated[str, typer.Option(help="One sentence about the model.")] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint; default: best.pt of the run.")
    ] = None,
    cache: Annotated[
        Path, typer.Option(help="Folder of decoded faces, for the parity check.")
    ] = CACHE,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = RUNS,
    fp16: Annotated[bool, typer.Option(help="Store weights in half precision.")] = False,
    seed: Seed = None,
    verbose: Verbose = 0,
) -> None:
    """Write a run's ONNX file and spec, checked against PyTorch on real faces."""
    _need_extra()
    from facewise.training.cache import open_cache
    from facewise.training.checks import check_checkpoint
    from facewise.training.config import load_config
    from facewise.training.data import plain_crops, warn_of_unlabelled
    from facewise.training.export import export_model
    from facewise.training.sources import licence, sources

    speak()
    settings = load_config(config, seed=seed)
    best = checkpoint or runs / settings.name / "best.pt"
    check_checkpoint(settings, best)
    behind = sources(settings)
    faces = open_cache(cache)
    warn_of_unlabelled(faces, settings.datasets)
    val = faces.rows("val")
    if not len(val):
        raise OptionError(f"{cache} has no picture of the split val: pass the run's own --cache")
    compared = val[:: max(20, len(val) // 128)]  # at once: at 192 px, each takes 7 MB
    spec = export_model(
        settings,
        best,
        out,
        crops=plain_crops(faces, settings, compared),
        fp16=fp16,
        name=name,
        version=version,
        description=description,
        licence=licence(behind),
        data=behind,
    )
    typer.echo(str(spec))
