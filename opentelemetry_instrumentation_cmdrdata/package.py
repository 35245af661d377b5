"""What is instrumented, as the contrib tools read it."""

_instruments = ("openai >= 1.0.0",)

OLDEST_TESTED = (1, 0)
NEWEST_TESTED = (3, 57)
