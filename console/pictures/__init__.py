"""Pictures of the operators' console: pure functions from values to rows of tables with bars.

A bar repeats values that its row contains as text. The macro `bar` of the templates draws it.
"""
