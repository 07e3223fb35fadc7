"""What holds for every test."""

from hypothesis import settings

# An example that takes 10 ms alone takes 500 beside another process: time is no property here.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
