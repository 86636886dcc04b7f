"""What works on this machine, and what to type for what does not.

``python -m robustdistiller.eval.doctor`` works where even the command line's packages are missing: these modules import
only the standard library, and try everything else in processes of their own (:mod:`~.probes`), so that a package that
does not import, or that takes its process with it, is a line of the report.
"""
