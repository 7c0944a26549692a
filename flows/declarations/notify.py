"""`Notify`: the recipients of a client's notices, by level."""

from dataclasses import dataclass

from flows.errors import DeclarationError


@dataclass(frozen=True)
class Notify:
    """Recipients by level: `mailto:…`, `https://…`, any Apprise URL, or `block:<Prefect notification block>`.

    A level left at `None` takes the recipients from `SYNCS_NOTIFY_NOTICE`, `…_WARNING` or `…_ERROR`.

    Raises:
        DeclarationError: a level is not a list of texts. `syncs check` finds texts that are not recipients.
    """

    notice: list[str] | None = None
    warning: list[str] | None = None
    error: list[str] | None = None

    def __post_init__(self) -> None:
        for level in ("notice", "warning", "error"):
            found = getattr(self, level)
            if found is not None and not (isinstance(found, list | tuple) and all(isinstance(one, str) for one in found)):
                # Without the value: it may hold a password.
                raise DeclarationError(f"Notify({level}=…) must be a list of recipients as text")
