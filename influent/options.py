"""What verbs of the command line take: the arguments and options that several share, each described once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Seen(StrEnum):
    """Whether items of a user's history may be recommended again."""

    exclude = "exclude"
    keep = "keep"


Log = Annotated[str, typer.Argument(help="CSV, TSV or JSON Lines (also .gz), Parquet: a file, a glob, a folder.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
RunOption = Annotated[Path, typer.Option("--run", help="The run folder to write.")]
User = Annotated[str | None, typer.Option("--user", help="Column that says who.")]
Item = Annotated[str | None, typer.Option("--item", help="Column that says to what.")]
Time = Annotated[str | None, typer.Option("--time", help="Column that says when.")]
Action = Annotated[str | None, typer.Option("--action", help="Column that says what was done.")]
Value = Annotated[str | None, typer.Option("--value", help="Column with a number: rating, amount, seconds.")]
Scene = Annotated[str | None, typer.Option("--scene", help="Column that says where it happened.")]
TimeUnit = Annotated[str | None, typer.Option(help="What numbers in the time column count: s, ms, us or ns.")]
Delimiter = Annotated[str | None, typer.Option(help="What separates the fields of a text file.")]
Items = Annotated[str | None, typer.Option("--items", help="Table of items: item_id, title, …")]
Users = Annotated[str | None, typer.Option("--users", help="Table of users: user_id and a column per feature.")]
SeenOption = Annotated[Seen, typer.Option(help="Whether items of the history may come again.")]
Size = Annotated[str | None, typer.Option(help="small, base or large: width, depth and heads.")]
SplitAt = Annotated[
    str | None, typer.Option("--split", help="last, or where test begins; by default as the run's model was split.")
]
Target = Annotated[str, typer.Option(help="With a split by time: predict the first, last or all events.")]
TargetAction = Annotated[list[str], typer.Option(help="Predict the next of these actions; repeatable.")]
Config = Annotated[Path | None, typer.Option(help=r"TOML with \[model] and \[train] settings.")]
Epochs = Annotated[int | None, typer.Option(help="Most passes over the training events.")]
Seed = Annotated[int | None, typer.Option(help="Where all randomness comes from.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
