"""The definition layer's parts: what users write, checked and compiled to a plan.

`values` holds what user code receives and returns, `step` the typed steps, `decorate` what makes them, `saga` the base
class, `compile` and `check` the way from a class body to a plan, `annotate` the types, `draw` the picture.
Must not run user code or know a store. `atone.definition` is the public face; the runtime calls `definition_of`.
"""
