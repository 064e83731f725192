"""A shop of django-oscar with its defaults; what differs from them is said."""

import os
from urllib.parse import urlsplit

from oscar import INSTALLED_APPS  # noqa: F401
from oscar.defaults import *  # noqa: F403

database = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": database.hostname,
        "PORT": database.port,
        "USER": database.username,
        "NAME": database.path.lstrip("/"),
        # As in oscar's own sandbox: a request is a transaction.
        "ATOMIC_REQUESTS": True,
    }
}

# The shop lives for a minute, on this machine. Its two processes need the same key.
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["127.0.0.1"]
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
SITE_ID = 1
ROOT_URLCONF = "urls"
STATIC_URL = "/static/"

# Oscar's default sends all to the log-in; whoever buys here has no account.
OSCAR_ALLOW_ANON_CHECKOUT = True

# Confirmations are written, and sent nowhere.
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"

# Nobody looks at the pictures, and making them takes time.
OSCAR_THUMBNAILER = "settings.NoThumbnails"


class NoThumbnails:
    """The picture as it is, for one of any size."""

    url = "/static/picture.png"

    def generate_thumbnail(self, source, **options):
        return self

    def delete_thumbnails(self, source):
        pass


# What oscar needs, besides its INSTALLED_APPS.
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
    "oscar.apps.basket.middleware.BasketMiddleware",
]
AUTHENTICATION_BACKENDS = ["oscar.apps.customer.auth_backends.EmailBackend"]
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}
TEMPLATES = [
    {
        # Without DEBUG, templates are read once.
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "oscar.apps.search.context_processors.search_form",
                "oscar.apps.checkout.context_processors.checkout",
                "oscar.core.context_processors.metadata",
            ],
        },
    }
]
