"""How messages are written, sent and taken in: envelopes, the relay, a service's own outbox and inbox.

Owns what the orchestrator and the participants have in common once a broker lies between them. Must not decide what a
saga does next. Called by the runtime, by choreography and by participants; users import none of it.
"""
