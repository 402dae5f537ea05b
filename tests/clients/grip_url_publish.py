"""Publishes one item to whatever a GRIP_URL names. Arguments: GRIP_URL, channel, text."""

import sys

from gripcontrol import GripPubControl, HttpStreamFormat, parse_grip_uri
from pubcontrol import Item

url, channel, text = sys.argv[1:]
config = parse_grip_uri(url)
pub = GripPubControl(config)
pub.publish(channel, Item([HttpStreamFormat(text)], id="1"), blocking=True)
pub.close()
print("published")
