"""Sends messages to people: by mail, webhook, Prefect notification block, Apprise or a plugin."""

from flows.channels.dispatch import check, masked, send
from flows.channels.message import Carrier, ChannelError, Message

__all__ = ["Carrier", "ChannelError", "Message", "check", "masked", "send"]
