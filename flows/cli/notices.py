"""`syncs notices`: what people were told, who has it, and what still waits to be sent. Only reads."""

from contextlib import closing
from typing import Any

import click

from flows.cli.answer import Answer, cell, table
from flows.cli.command import Command
from flows.cli.declared import complete_clients

_STATES = {"waiting": "waits", "sent": "sent", "failed": "given up"}


@click.command("notices", cls=Command, short_help="Show what people were told.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--waiting", is_flag=True, help="Only messages that have not gone out to everybody.")
@click.option("--open", "open_", is_flag=True, help="The trouble that is not over, in place of messages.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def notices(client: str | None, waiting: bool, open_: bool, limit: int) -> Answer:
    """Show the messages that were written, the newest first: what about, to whom, and whether they went out.

    Of a recipient that may hold a secret only the kind is shown. What waits is sent by the next worker, run or `syncs maintain`.

    \b
    Example:
      syncs notices
      syncs notices petstore --waiting
      syncs notices --open --json
    """
    from flows.settings import open_store

    with closing(open_store()) as store:
        if open_:
            return _open(store.letters.notices(client, limit=limit))
        found = store.letters.views(client, waiting=waiting, limit=limit)
    rows = [(str(one.id), one.created_at, one.level, one.what, one.subject, _to(one.deliveries)) for one in found]
    text = table(("ID", "WRITTEN", "LEVEL", "WHAT", "SUBJECT", "TO"), rows) if rows else ""
    errors = [f"{delivery['to']}: {delivery['error']}" for one in found for delivery in one.deliveries if delivery["error"]]
    notes = tuple(dict.fromkeys(errors)) if rows else ("nothing waits" if waiting else "nobody was told anything yet",)
    return Answer(found, text, notes)


def _open(found: list[Any]) -> Answer:
    rows = [
        (one.client, one.sync, one.kind, one.level, one.opened_at, one.count, "; ".join(cause["text"] for cause in one.causes))
        for one in found
    ]
    text = table(("CLIENT", "ABOUT", "KIND", "LEVEL", "SINCE", "COUNT", "CAUSE"), rows) if rows else ""
    return Answer(found, text, () if rows else ("no trouble is open",))


def _to(deliveries: list[dict[str, Any]]) -> str:
    parts = []
    for one in deliveries:
        when = (
            cell(one["sent_at"])
            if one["state"] == "sent"
            else f"next {cell(one['next_at'])}"
            if one["state"] == "waiting"
            else ""
        )
        parts.append(f"{one['to']} {_STATES.get(one['state'], one['state'])}{' ' + when if when else ''}")
    return ", ".join(parts) or "nobody"
