"""What all tests share: how long hypothesis may take (these machines are noisy: as it likes)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ioreqd", deadline=None, print_blob=True)
settings.load_profile("ioreqd")
