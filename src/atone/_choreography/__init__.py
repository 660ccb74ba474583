"""How events and reactions are declared: the decorators, the participants, and the way to an `EventMap`.

Owns what `atone.choreography` gives to users on the declaring side. Must not publish, listen or run a handler: what
serves participants does. Called by `atone.choreography` and by the command line's check.
"""
