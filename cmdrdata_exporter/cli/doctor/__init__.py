"""`cmdrdata doctor`: what would keep calls from being metered, or events from being delivered, before it does."""
