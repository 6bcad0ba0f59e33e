"""How alike two representations of the same stimuli are: measures, their null values, and how sure one can be.

Everything starts from activations (N, D), stimuli in rows. `measures` names what can be computed; `rdm`, `compare`, `cka`,
`procrustes` and `predictivity` compute it; `inference` puts intervals, nulls and ceilings beside it. `corrections`,
`partial`, `equalise` and `ceiling` take loud features out of a comparison; `recovery` asks what finds the true computation.
"""
