"""The codec's parts: what survives the trip to JSON and back, and how an exception becomes text.

Must not know a saga or a store. `atone.codec` is the public face; the runtime takes `describe` from there.
"""
