"""Ways to people: mail, webhooks, Prefect notification blocks, Apprise, plugins. Knows no notice, no table and no Prefect."""

from flows.channels.carrier import Carrier
from flows.channels.message import ChannelError, Message
from flows.channels.recipient import check, masked, send

__all__ = ["Carrier", "ChannelError", "Message", "check", "masked", "send"]
