"""Pretix as it is, but that its mail goes nowhere: there is no server for it."""

from pretix.settings import *  # noqa: F403

EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
EMAIL_CUSTOM_SMTP_BACKEND = EMAIL_BACKEND
