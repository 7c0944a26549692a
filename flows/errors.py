"""Errors that a person can correct. The text is one line that says what is wrong, where, and what to do.

FlowsError            exit code 2 at the command line
├── DeclarationError  a declaration cannot work: correct the file
├── UnknownName       no client, sync or queue has this name
├── SettingsError     a setting is missing or wrong: set the variable or the Secret block
└── UsageError        the command's words do not fit together
"""


class FlowsError(Exception):
    """Something that a person can correct; the text is the one line that they see."""


class DeclarationError(FlowsError, ValueError):
    """A declaration cannot work."""


class UnknownName(FlowsError, LookupError):
    """Nothing declared has this name."""


class SettingsError(FlowsError):
    """A setting is missing or wrong."""


class UsageError(FlowsError):
    """The command's words do not fit together."""
