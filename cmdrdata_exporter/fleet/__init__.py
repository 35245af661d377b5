"""
Beyond one host: one ledger of many hosts, and the gateway that fills it.

Nothing else imports this: who meters one host needs none of what it is made of.
"""
