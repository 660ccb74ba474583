"""The order saga as choreography: four services that react to each other's events, and nobody in the middle.

Owns the events, the participants, their process, and a run of them with kills, duplicates and events out of order. What
the services do is the same code that the orchestrated example calls over HTTP: `inventory`, `payments`, `shipping`.
"""
