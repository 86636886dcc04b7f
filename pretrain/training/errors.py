"""The error of a disk that is full."""


class DiskFullError(OSError):
    """What a run has to keep does not fit on the disk; the message names the file and what to do.

    >>> issubclass(DiskFullError, OSError)
    True
    """
