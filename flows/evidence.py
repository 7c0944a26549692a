"""What an attempt asked and what came back, as it is kept with the attempt. Knows no job and no database."""

from clients.exchange import Recorder
from flows.mask import Mask
from jobs.fingerprint import encode


def evidence(recorder: Recorder, mask: Mask) -> str | None:
    """Return the last exchanges as JSON text, `[{"request": …, "response": …}]`, or `None` where there were none.

    Args:
        recorder: what was recorded.
        mask: takes out the client's secrets, wherever in a URL they stand.
    """
    found = [{name: _storable(mask(text)) for name, text in one.items()} for one in recorder.summary]
    return encode(found).decode() if found else None


def _storable(text: str) -> str:
    # Half a surrogate pair is no JSON; a path may hold one that was never sent.
    return text.encode(errors="replace").decode()
