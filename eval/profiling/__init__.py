"""What an upstream costs: parameters, MACs on SUPERB's profiling utterances, real-time factor, memory."""

from robustdistiller.eval.profiling.measure import ProfileError, ProfileSettings, profile_upstream
from robustdistiller.eval.profiling.record import Profile, profile_path, read_profiles, write_profile

__all__ = [
    "Profile",
    "ProfileError",
    "ProfileSettings",
    "profile_path",
    "profile_upstream",
    "read_profiles",
    "write_profile",
]
