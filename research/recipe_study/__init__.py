"""The recipe study: which recipe makes the best student, under which condition, and what it costs.

A plan (`plan.yaml`) names the students. Each is distilled as users distil, by several processes of the job engine;
one sweep scores all of them as users' sweeps do; the report reads the sweep's records. There are two stages:

- ``screening``: every student once, scored on the development sets, in noise and rooms of their own.
- ``finalists``: the students that the plan names as such, from seeds that chose nothing, scored on the test sets. What
  is compared with what stands in `comparisons.yaml` before, and is kept when the test sets are opened.
"""
