"""Property tests measure behaviour, not the machine: a slow example is not a failed one."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
