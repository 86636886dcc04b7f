"""The continuous noise of the shipped corpus: how `mini/data/noise/continuous-*.ogg` were made.

`sh research/embedded_noise/fetch.sh FOLDER` unpacks the Debian packages that the recordings come from, and
`python -m research.embedded_noise FOLDER` cuts the pieces listed in `pieces.tsv`, writes them and their rows of
`noise.tsv`, and says how each piece measures. Made again, the recordings decode to the same samples; the bytes differ
by the random serial number of an Ogg stream.
"""
