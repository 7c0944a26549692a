"""`syncs notices`: lists the messages to people, to whom they went, and which still wait to be sent. Only reads."""

from contextlib import closing
from datetime import datetime
from typing import Any

import click

from flows.cli.command import Command
from flows.cli.declared_names import complete_clients
from flows.cli.known_names import check_client
from flows.cli.output import CommandOutput, table
from flows.time_text import relative_text

_STATES = {"waiting": "waits", "sent": "sent", "failed": "given up"}


@click.command("notices", cls=Command, short_help="Show the messages that people got.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--waiting", is_flag=True, help="Only messages that were not sent to everybody yet.")
@click.option("--open", "open_", is_flag=True, help="Open troubles instead of messages.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def notices(client: str | None, waiting: bool, open_: bool, limit: int) -> CommandOutput:
    """Show messages, the newest first: about what, to whom, and whether they were sent.

    Of a recipient that may contain a secret only the kind is shown. A waiting message is sent by the next worker, run or
    `syncs maintain`.

    \b
    Example:
      syncs notices
      syncs notices petstore --waiting
      syncs notices --open --json
    """
    from flows.project.settings import open_store

    with closing(open_store()) as store:
        views, now = store.notice_views, store.views.now()
        found: list[Any] = views.notices(client, limit=limit) if open_ else views.messages(client, waiting=waiting, limit=limit)
        check_client(client, is_stored=bool(found or views.messages(client, limit=1)))
        if open_:
            return _open(found, now)
    rows = [
        (str(one.id), relative_text(one.created_at, now=now), one.level, one.what, one.subject, _to(one.deliveries, now))
        for one in found
    ]
    text = table(("ID", "WRITTEN", "LEVEL", "WHAT", "SUBJECT", "TO"), rows) if rows else ""
    errors = [f"{delivery['to']}: {delivery['error']}" for one in found for delivery in one.deliveries if delivery["error"]]
    notes = tuple(dict.fromkeys(errors)) if rows else ("nothing waits" if waiting else "nobody was told anything yet",)
    return CommandOutput(found, text, notes)


def _open(found: list[Any], now: datetime) -> CommandOutput:
    rows = []
    for one in found:
        causes = "; ".join(cause["text"] for cause in one.causes)
        rows.append((one.client, one.sync, one.kind, one.level, relative_text(one.opened_at, now=now), one.count, causes))
    text = table(("CLIENT", "ABOUT", "KIND", "LEVEL", "SINCE", "COUNT", "CAUSE"), rows) if rows else ""
    return CommandOutput(found, text, () if rows else ("no trouble is open",))


def _to(deliveries: list[dict[str, Any]], now: datetime) -> str:
    parts = []
    for one in deliveries:
        part = f"{one['to']} {_STATES.get(one['state'], one['state'])}"
        if one["state"] == "sent":
            part += f" {relative_text(one['sent_at'], now=now)}"
        elif one["state"] == "waiting":
            part += f" next {relative_text(one['next_at'], now=now)}"
        parts.append(part)
    return ", ".join(parts) or "nobody"
