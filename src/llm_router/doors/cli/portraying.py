"""What the configuration and the files tell of a model, drawn for people or programs.

It asks no router. What it draws is ``host.portrait``'s.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_router.doors.cli import output

if TYPE_CHECKING:
    from llm_router.config.load import Config


def configured(config: "Config", model: str) -> dict[str, Any]:
    """What the configuration and the files tell of a model, for programs; ``show`` prints it for people."""
    from llm_router.config.proposal import describe
    from llm_router.host.machine.gpus import Gauge
    from llm_router.host.portrait import hide_options, portray

    found = portray(config, model, len(Gauge().gpus))
    given = config.models[model].model_dump(mode="json", exclude_defaults=True, exclude={"env", "command"})
    if "args" in given:
        given["args"] = hide_options(given["args"])
    about, estimated = found.about, found.estimated
    return {
        "backend": found.backend,
        "engine": found.engine,
        "entry": given,
        "file": describe(about) if about is not None else None,
        "estimate": list(estimated.explain) if estimated is not None else [],
        "unit": found.unit or None,
        "argv": list(found.argv),
        "env": dict(found.env or {}),
        "files": list(found.files),
        "problem": found.problem or None,
    }


def show(told: Mapping[str, Any]) -> None:
    """The same for people, in the manner of ``output.show_model``."""
    import json
    import shlex

    out = output.console()
    rows = {
        "backend": told["backend"] if told["backend"] == told["engine"] else f"{told['backend']} ({told['engine']})",
        "settings": ", ".join(
            f"{key}: {json.dumps(value)}" for key, value in told["entry"].items() if key != "backend"
        ),
        "is": told["file"] or "",
        "takes": told["estimate"],
        "unit": told["unit"] or "",
        "runs": shlex.join(told["argv"]),
        "with": [f"{name}={value}" for name, value in told["env"].items()],
        "writes": told["files"],
        "problem": told["problem"] or "",
    }
    for name, value in rows.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            if line:
                style = "red" if name == "problem" else None
                out.print(f"  {name if number == 0 else '':<10} {output.printable(line)}", style=style, soft_wrap=True)
