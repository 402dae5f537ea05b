"""The least that Django, django-grip and django-eventstream need."""

import os
from pathlib import Path

SECRET_KEY = "an example has no secrets"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django_eventstream"]
MIDDLEWARE = ["django_grip.GripMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", Path(__file__).parent / "events.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

# Where to publish, and the key that waft signs its requests with.
GRIP_PROXIES = [{"control_uri": os.environ.get("CONTROL", "http://127.0.0.1:5561"), "key": "changeme"}]
# Events are kept, so that a client that comes back gets what it missed.
EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.DjangoModelStorage"
