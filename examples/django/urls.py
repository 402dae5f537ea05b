"""A stream, a long poll, a stateless WebSocket, and server-sent events that survive a reconnect."""

import django_eventstream
from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from django_eventstream import send_event
from django_grip import publish, set_hold_longpoll, set_hold_stream, websocket_only
from gripcontrol import HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat


def stream(request):
    set_hold_stream(request, "news")
    return HttpResponse("welcome\n", content_type="text/plain")


def poll(request):
    set_hold_longpoll(request, "news", timeout=25)
    return HttpResponse("no news\n", content_type="text/plain")


@csrf_exempt
@websocket_only
def ws(request):
    """A WebSocket whose events come as POST requests: the text of a client is its echo."""
    socket = request.wscontext
    if socket.is_opening():
        socket.accept()
        socket.subscribe("room")
    while socket.can_recv():
        try:
            message = socket.recv()
        except IOError:  # The client has gone.
            break
        if message is None:
            socket.close()
            break
        socket.send(message)


@csrf_exempt
def say(request):
    """Sends the body of the request to all WebSockets."""
    publish("room", WebSocketMessageFormat(request.body.decode()), blocking=True)
    return HttpResponse("said\n")


@csrf_exempt
def news(request):
    """Publishes the body of the request to streams and polls."""
    text = request.body.decode()
    publish("news", [HttpStreamFormat(text + "\n"), HttpResponseFormat(body=text + "\n")], blocking=True)
    return HttpResponse("published\n")


@csrf_exempt
def event(request):
    """Sends the body of the request to everyone who listens to /events/."""
    send_event("room", "message", {"text": request.body.decode()}, async_publish=False)
    return HttpResponse("sent\n")


def whoami(request):
    """Tells whether the request came through waft, with a right signature."""
    return HttpResponse(f"proxied={request.grip.proxied} signed={request.grip.signed}\n")


urlpatterns = [
    path("stream", stream),
    path("poll", poll),
    path("news", news),
    path("ws", ws),
    path("say", say),
    path("event", event),
    path("whoami", whoami),
    path("events/", include(django_eventstream.urls), {"channels": ["room"]}),
]
