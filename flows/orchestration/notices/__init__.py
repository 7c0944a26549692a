"""Sends messages through the Prefect server: its blocks, its automations, and the events that start them."""

from typing import TYPE_CHECKING

from flows.notices.process_carrier import use_carrier

if TYPE_CHECKING:
    from flows.channels import Carrier


def use_prefect_carrier() -> None:
    """Let the messages of this process go through the project's Prefect server first, where one answers.

    Imports neither Prefect nor any channel before there is a message to send.
    """
    use_carrier(_project_carrier)


def _project_carrier() -> "Carrier | None":
    from flows.orchestration.notices.prefect_carrier import project_carrier

    return project_carrier()
