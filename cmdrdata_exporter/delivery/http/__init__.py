"""The destination that is reached by HTTP."""
