"""Takes control characters out of text: what a remote system writes must not command a terminal, or turn the way of writing."""

import json
import logging
import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of writing
    "\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # other invisible ones
    "\ud800-\udfff]"
)

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, *, instead: str = REPLACEMENT) -> str:
    """Return a text without control characters; line feeds and tabs stay.

    Args:
        text: from anywhere.
        instead: of each control character.
    """
    return _UNSAFE.sub(instead, text)


def printable_json(document: str) -> str:
    """Return a JSON text in which control characters are escaped: it has the same value, and no effect on a terminal."""
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], document)


class PrintableFilter(logging.Filter):
    """Takes the control characters out of a record and its traceback, before a handler formats them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; always let it pass."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: the handler reports that, and the caller goes on
            return True
        record.msg, record.args = printable(text), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            # Formatters print this text where it is there.
            record.exc_text = printable(record.exc_text)
        return True


_filter = PrintableFilter()


def make_logs_printable() -> None:
    """Put the filter on all handlers that are there, and on the one of last resort. A second call changes nothing."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    for handler in handlers:
        handler.addFilter(_filter)
