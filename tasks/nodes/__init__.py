"""The health of the cluster's nodes: an agent that looks, a controller that decides, a list for people.

All state of a node is on its Node object: the agent writes a condition and its samples, the
controller a record (`record.py`), from which label and taints follow (`marks.py`). Whoever dies
finds everything there again.
"""
