"""The proxy that the environment names, and how messages speak of it. It stands between us and everything."""

from urllib.request import getproxies, proxy_bypass

from clients.connect_retry import failure_reason
from clients.errors import LocalError


def proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`, …), or None.

    Args:
        scheme: of the URL that is asked for.
        host: likewise.
    """
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_text(proxy: str | None) -> str:
    """Return what a message says of the proxy that was used, empty if there was none. Its URL may hold a password."""
    return "" if proxy is None else f" with the proxy that the environment names ({proxy.partition('://')[0]}://…)"


def silent_proxy(failed: BaseException, *, method: str, url: str) -> LocalError:
    """Return the error of a request whose proxy does not answer: that says nothing about the remote system.

    Args:
        failed: why there is no connection to the proxy.
        method: of the request.
        url: of the request, as messages show it.
    """
    reason = failure_reason(failed) or "no connection in time"
    return LocalError(f"the proxy that the environment names does not answer: {reason}", method=method, url=url)
