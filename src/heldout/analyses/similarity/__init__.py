"""How alike two sets of activations of the same stimuli are: measures, and what it takes to believe them.

`measures` has them by name, `inference` their intervals, nulls and ceilings, `corrections`, `partial` and `equalise` what can be
done about loud features, and `recovery` how often a measure finds the true computation again. See docs/similarity.md.
"""
