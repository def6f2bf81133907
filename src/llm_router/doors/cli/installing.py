"""Commands that put the router on this host as a service, and take it away: ``install``, ``uninstall``.

They ask, show and tell. What is to be done is decided in ``host.install`` before anything is touched.
"""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from llm_router.host.install.deeds import Deed
    from llm_router.host.install.layout import Layout
    from llm_router.host.install.ledger import Ledger
    from llm_router.host.install.network import Network
    from llm_router.host.install.plan import Plan

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; what no option says is the default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]
ForUser = Annotated[
    bool, typer.Option("--user", help="For this account alone, by its own systemd manager and without root.")
]

_Venv = Literal["auto", "present", "new"]
_WHERE = {
    "host": "on this host",
    "container": "in a container on this host",
    "remote": "on another machine",
}


def install(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Configuration to put in place. Otherwise it is looked for.", metavar="PATH"
        ),
    ] = None,
    user: ForUser = False,
    account: Annotated[
        str, typer.Option(help="Account that runs the router; made if it is missing.", metavar="NAME")
    ] = "llm-router",
    open_webui: Annotated[
        str | None,
        typer.Option(
            help="Where Open WebUI, or another client, runs: host, container or remote. Beyond this host a key is made.",
            metavar="WHERE",
            show_default=False,
        ),
    ] = None,
    bridge: Annotated[
        str | None,
        typer.Option(
            help="Address of this host on the containers' bridge. Otherwise it is looked for.", metavar="ADDRESS"
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port instead of the configuration's.", metavar="PORT", min=1, max=65535)
    ] = None,
    venv: Annotated[
        str,
        typer.Option(
            help="Which Python environment: present is the one of this command, new is made below /opt/llm-router, "
            "auto is the first of them that the account can run and nobody else can change.",
            metavar="CHOICE",
        ),
    ] = "auto",
    source: Annotated[
        str | None,
        typer.Option(
            help="What pip installs into a new environment; by default what this one was installed from.",
            metavar="WHAT",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Install the router as a service of systemd: account, folders, configuration, units; then start and check it."""
    from llm_router.config.problems import ConfigError
    from llm_router.host.install import doing, plan
    from llm_router.host.install.machine import InstallError

    _check_words(open_webui, venv, json=json, decided=yes or dry_run)
    layout = _layout(user=user)
    _check_rights(layout, dry_run=dry_run)
    try:
        ledger = _ledger(layout)
        _undo_cut_off(ledger, yes=yes, dry_run=dry_run, json=json)
        network = _network(open_webui, bridge, port, ask=not (yes or json or dry_run))
        chosen = _plan(layout, config, "" if user else account, network, cast("_Venv", venv), source)
        deeds = plan.deeds(chosen)
        missing = doing.todo(deeds)
        _show(chosen, missing, json=json, dry_run=dry_run)
        if dry_run:
            return
        if missing:
            _agree(yes=yes, question="Do it?")
            doing.perform(missing, ledger, _teller(json=json))
            doing.prune(deeds, ledger, _teller(json=json))
    except ConfigError as error:
        raise CommandError(str(error), Exit.configuration) from None
    except (InstallError, ValueError) as error:
        raise CommandError(str(error)) from None
    _report(chosen, network, changed=bool(missing), json=json)


def uninstall(
    user: ForUser = False,
    purge: Annotated[bool, typer.Option("--purge", help="Take the configuration away too.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Take away exactly what install made: units, account, folders. The configuration stays unless --purge."""
    from llm_router.host.install import doing
    from llm_router.host.install.machine import InstallError

    layout = _layout(user=user)
    _check_words(None, "auto", json=json, decided=yes or dry_run)
    _check_rights(layout, dry_run=dry_run)
    try:
        ledger = _ledger(layout)
        going, staying = doing.parted(ledger, purge=purge)
        if not going:
            text = f"Nothing is to be done: {'only the configuration is left' if staying else 'it is not installed'}."
            output.print_json({"changed": False, "undone": [], "stays": []}) if json else typer.echo(text)
            return
        lines = [deed.unsays() for deed in reversed(going)]
        if not json:
            typer.echo("To be undone:")
            _list(lines)
            _list([f"{deed.path} stays" for deed in staying])
        if dry_run:
            if json:
                output.print_json({"changed": False, "undone": lines, "stays": [deed.path for deed in staying]})
            return
        _agree(yes=yes, question="Undo it?")
        left = doing.uninstall(ledger, _teller(json=json), purge=purge)
    except InstallError as error:
        raise CommandError(str(error)) from None
    if json:
        stays = [*(deed.path for deed in staying), *left]
        output.print_json({"changed": True, "undone": lines, "stays": stays})
    else:
        _list(left)
        typer.echo("It is uninstalled.")
    if any(line.startswith("not undone") for line in left):
        raise typer.Exit(Exit.failed)


def _check_words(open_webui: str | None, venv: str, *, json: bool, decided: bool) -> None:
    if open_webui is not None and open_webui not in _WHERE:
        raise CommandError(f"cannot use {open_webui!r} as --open-webui: it is {', '.join(_WHERE)}", Exit.usage)
    if venv not in {"auto", "present", "new"}:
        raise CommandError(f"cannot use {venv!r} as --venv: it is auto, present or new", Exit.usage)
    if json and not decided:
        raise CommandError("cannot ask with --json: add --yes or --dry-run", Exit.usage)


def _layout(*, user: bool) -> "Layout":
    from llm_router.host.install import layout

    return layout.user(Path.home(), dict(os.environ)) if user else layout.system()


def _check_rights(layout: "Layout", *, dry_run: bool) -> None:
    from llm_router.host.supervisors import choosing

    if layout.scope == "user" and os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        raise CommandError("cannot install for an account with sudo: type it without sudo", Exit.usage)
    if layout.scope == "system" and os.geteuid() != 0 and not dry_run:
        raise CommandError(
            "cannot change the whole machine without root: use sudo, or --user for this account alone", Exit.forbidden
        )
    if not choosing.BOOTED.is_dir() and not dry_run:
        raise CommandError("cannot install a service: this machine was not booted by systemd; use `llm-router serve`")


def _ledger(layout: "Layout") -> "Ledger":
    from llm_router.host.install.ledger import Ledger

    return Ledger(layout.config)


def _undo_cut_off(ledger: "Ledger", *, yes: bool, dry_run: bool, json: bool) -> None:
    """What is half there must not be taken for what an operator put there, so this comes before any look."""
    from llm_router.host.install import doing

    if not ledger.cut_off:
        return
    if dry_run:
        raise CommandError("cannot plan: an earlier installation was cut off; `llm-router uninstall` undoes it")
    if not json:
        typer.echo("An earlier installation was cut off. It is undone first:")
        _list([deed.unsays() for deed in reversed(ledger.cut_off)])
    _agree(yes=yes, question="Undo it?")
    left = doing.take_back(reversed(ledger.cut_off), ledger, lambda _text: None)
    if left:
        raise CommandError("cannot undo all of it", details=tuple(left))


def _network(open_webui: str | None, bridge: str | None, port: int | None, *, ask: bool) -> "Network":
    from llm_router.host.install import network

    where = cast("network.Where", open_webui or (_ask_where() if ask else "host"))
    if where != "container":
        return network.Network(where, port=port)
    found = network.bridge()
    address = bridge or (found.address if found else "")
    if not address and ask:
        address = _asked("Address of this host on the containers' bridge")
    if not address:
        raise CommandError(
            "cannot find the bridge of the containers: no docker0 or podman0 is up; name this host's address on it with "
            "--bridge",
            Exit.usage,
        )
    return network.Network(where, address, port)


def _ask_where() -> str:
    typer.echo("Where does Open WebUI, or another client, run?")
    for count, words in enumerate(_WHERE.values(), 1):
        typer.echo(f"  {count}  {words}")
    number = _asked("Number", "1")
    if number not in {"1", "2", "3"}:
        raise CommandError(f"cannot use {number!r}: it is 1, 2 or 3", Exit.usage)
    return list(_WHERE)[int(number) - 1]


def _asked(question: str, default: str | None = None) -> str:
    try:
        return str(typer.prompt(question, default=default))
    except typer.Abort:
        raise CommandError("cannot ask: nobody answers on standard input; add --yes", Exit.usage) from None


def _plan(
    layout: "Layout", config: Path | None, account: str, network: "Network", venv: _Venv, source: str | None
) -> "Plan":
    from llm_router.host.install import plan, program, settings

    home = layout.state if account else Path.home()
    origin = settings.find(config, layout, os.environ)
    prepared = settings.prepare(origin, network, layout, os.environ, home)
    return plan.Plan(
        layout,
        prepared,
        program.choose(venv, layout, account, source),
        account,
        plan.engines(prepared.config, account),
        network,
    )


def _show(plan: "Plan", missing: Sequence["Deed"], *, json: bool, dry_run: bool) -> None:
    from llm_router.host.install import plan as planning

    steps, notes = [deed.says() for deed in missing], planning.notes(plan)
    texts = planning.texts(plan)
    if json:
        if dry_run:
            output.print_json({"changed": False, "steps": steps, "notes": notes, "files": texts})
        return
    if not steps:
        typer.echo("It is installed already; nothing is to be done.")
        return
    typer.echo("To be done:")
    _list(steps)
    _list(notes, "note: ")
    if dry_run:
        for path, text in texts.items():
            typer.echo(f"\n--- {path}\n{text}", nl=False)


def _list(lines: Sequence[str], before: str = "") -> None:
    for line in lines:
        typer.echo(f"  {before}{line}")


def _teller(*, json: bool) -> Callable[[str], None]:
    return (lambda _text: None) if json else (lambda text: typer.echo(f"  {text} ..."))


def _agree(*, yes: bool, question: str) -> None:
    if yes:
        return
    try:
        agreed = typer.confirm(question, default=True)
    except typer.Abort:
        raise CommandError("cannot ask: nobody answers on standard input; add --yes", Exit.usage) from None
    if not agreed:
        raise CommandError("cannot go on: you said no. Nothing was changed")


def _report(plan: "Plan", network: "Network", *, changed: bool, json: bool) -> None:
    connection, keys = _connection(plan, network), dict(plan.settings.fresh_keys)
    if json:
        output.print_json(
            {"changed": changed, "url": plan.settings.config.server.url, "keys": keys, "connection": connection}
        )
        return
    _check_itself(plan)
    typer.echo("")
    typer.echo(connection)
    if "admin" in keys:
        typer.echo("A key of your own, for the commands of llm-router; no key is shown again:")
        typer.echo(f"  export LLM_ROUTER_API_KEY={keys['admin']}")


def _check_itself(plan: "Plan") -> None:
    """What the doctor does not like, of all that it looks at."""
    from llm_router.doors.cli.examining import show
    from llm_router.host.doctor.examination import Case, examine
    from llm_router.host.doctor.findings import Level

    key = plan.settings.fresh_keys.get("admin") or os.environ.get("LLM_ROUTER_API_KEY")
    found = list(examine(Case(os.environ, Path.home(), plan.layout.config, key=key)))
    bad = [finding for finding in found if finding.level is not Level.ok]
    typer.echo(f"\nChecked: {len(found) - len(bad)} of {len(found)} things are well{':' if bad else '.'}")
    show(bad)


def _connection(plan: "Plan", network: "Network") -> str:
    from llm_router.host.install.network import connection

    server = plan.settings.config.server
    keys = plan.settings.fresh_keys
    key = keys.get("open-webui") or ("one of those in your configuration" if server.keys else None)
    return connection(network, server.port, host_name=socket.gethostname(), key=key)
