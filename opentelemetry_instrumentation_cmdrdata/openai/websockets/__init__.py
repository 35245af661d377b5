"""
Metering of the SDK's WebSocket connections, which `OpenAI.request` never sees.

`connections` is the table of them, `readings` reads what their frames tell, `frames` says what each frame does to a
`session`, and `patching` is what is replaced of the SDK.
"""
