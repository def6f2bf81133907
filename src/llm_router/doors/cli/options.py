"""Options that many commands share, spelled and explained once."""

from pathlib import Path
from typing import Annotated

import typer

JSON_WANTED = "llm_router.json"
"""Where a command's context remembers that its answer, and its error, are to be JSON."""


def _remember_json(context: typer.Context, value: bool) -> bool:
    context.meta[JSON_WANTED] = value
    return value


Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the router. Otherwise $LLM_ROUTER_URL, else what the configuration says.", metavar="URL"
    ),
]
Key = Annotated[
    str | None, typer.Option(help="Key for the router.", envvar="LLM_ROUTER_API_KEY", show_envvar=True, metavar="KEY")
]
Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file or folder. Otherwise it is looked for.", metavar="PATH"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", callback=_remember_json)]
Model = Annotated[str, typer.Argument(help="Name or alias of the model.", metavar="MODEL")]
