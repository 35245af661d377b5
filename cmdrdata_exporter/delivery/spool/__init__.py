"""The spool: a directory of journals, into which processes append, and a ledger, which knows where every event is."""
