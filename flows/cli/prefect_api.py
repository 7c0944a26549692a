"""Finds the Prefect API that this project uses, and asks it with one HTTP request whether it answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefectApi:
    """The Prefect API that is configured, or that `syncs up` started.

    Args:
        url: its address, `None` where there is none. It may hold credentials, so show it only through `public_url`.
        answers: whether a server answers there.
        problem: why runs cannot go through it; empty when it answers.
    """

    url: str | None
    answers: bool
    problem: str = ""


def find_prefect_api() -> PrefectApi:
    """Look for the API in the environment, the Prefect profile, and the server of this project."""
    from clients.urls import public_url
    from flows.project.prefect_address import api_url, is_reachable

    url = api_url()
    if url is None:
        return PrefectApi(None, answers=False, problem="no Prefect server (`syncs up` starts one)")
    if is_reachable(url):
        return PrefectApi(url, answers=True)
    return PrefectApi(url, answers=False, problem=f"the Prefect server at {public_url(url)} does not answer")
