"""A concert with one kind of ticket. How many there are is set by the load test, before each run."""

from datetime import timedelta

import django

django.setup()

from django.utils.timezone import now  # noqa: E402
from django_scopes import scopes_disabled  # noqa: E402
from pretix.base.models import Event, Organizer, Team  # noqa: E402

with scopes_disabled():
    organizer = Organizer.objects.create(name="Club", slug="club")
    event = Event.objects.create(
        organizer=organizer,
        name="Concert",
        slug="concert",
        currency="EUR",
        # This seed is kept for later runs.
        date_from=now() + timedelta(days=3650),
        live=True,
    )
    event.set_defaults()
    # It costs nothing, so that there is nothing to pay. The ids are in the description of the shop.
    ticket = event.items.create(id=1, name="Ticket", default_price=0)
    quota = event.quotas.create(id=1, name="Seats", size=0)
    quota.items.add(ticket)
    # Who may ask how many are left, and say how many there are.
    desk = Team.objects.create(
        organizer=organizer, name="Desk", all_events=True, all_event_permissions=True
    )
    desk.tokens.create(name="load test", token="not-a-secret")
