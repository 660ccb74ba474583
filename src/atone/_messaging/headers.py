"""The names of the headers that Atone's messages carry, and what may stand in them: a stored format, never renamed.

Owns the names only. A message without `KIND` is not Atone's own and is treated as an event of its topic. Read and
written by envelopes, the reply listener and participants; who speaks to Atone from elsewhere needs it.
"""

from __future__ import annotations

KIND = "atone-kind"  # event, command, reply or lifecycle
NAME = "atone-name"  # of the event or command, as it was declared
VERSION = "atone-version"  # of its schema, a whole number from 1
TENANT = "atone-tenant"
SAGA = "atone-saga"  # the definition's or the choreography's name
SAGA_ID = "atone-saga-id"
CAUSE = "atone-cause"  # the id of the message that led to this one
SOURCE = "atone-source"  # who published it: a participant's name, or the orchestrator's
AT = "atone-at"  # when it was written, epoch seconds

# Of commands, and of replies, which repeat them.
STEP = "atone-step"
OPERATION = "atone-operation"  # action or compensation
ATTEMPT = "atone-attempt"
IDEMPOTENCY_KEY = "atone-idempotency-key"
ACTION_KEY = "atone-action-key"  # of a compensation: the key of the action that it undoes
REPLY_TO = "atone-reply-to"  # the topic of the answer
OUTCOME = "atone-outcome"  # of a reply: succeeded or rejected; a rejection's body is {"reason": "..."}

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

EVENT, COMMAND, REPLY, LIFECYCLE = "event", "command", "reply", "lifecycle"
SUCCEEDED, REJECTED = "succeeded", "rejected"
ACTION, COMPENSATION = "action", "compensation"
