"""Which way a run goes: through a Prefect server, or straight through the engine. Asks at most one HTTP question."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """The way a run goes.

    Args:
        url: the Prefect API that is configured or up; it may hold no credentials when it is shown.
        through_prefect: whether it answers.
        why_not: what to tell the person when it does not.
    """

    url: str | None
    through_prefect: bool
    why_not: str = ""


def find_route() -> Route:
    """Look for a Prefect server."""
    from flows.orchestration.address import api_url, is_there

    url = api_url()
    if url is None:
        return Route(None, False, "no Prefect server (`syncs up` starts one)")
    if is_there(url):
        return Route(url, True)
    return Route(url, False, f"the Prefect server at {_public(url)} does not answer")


def _public(url: str) -> str:
    from clients.urls import public_url

    return public_url(url)
