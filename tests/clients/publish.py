"""Publishes one item with gripcontrol, as applications do. Arguments: control URI, channel, text."""

import sys

from gripcontrol import GripPubControl, HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat
from pubcontrol import Item

uri, channel, text = sys.argv[1:]
pub = GripPubControl({"control_uri": uri, "control_iss": "realm", "key": "a key that nobody checks"})
formats = [
    HttpResponseFormat(code=202, headers={"X-From": "gripcontrol"}, body=text),
    HttpStreamFormat(text),
    WebSocketMessageFormat(text),
]
pub.publish(channel, Item(formats, id=None), blocking=True)
pub.close()
print("published")
