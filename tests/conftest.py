"""Settings that all tests share."""

from hypothesis import settings

# A busy machine is no failure: what is tested is what comes out, not how soon.
settings.register_profile("heldout", deadline=None)
settings.load_profile("heldout")
