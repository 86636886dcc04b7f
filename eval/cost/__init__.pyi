from .measure import ProfileSettings as ProfileSettings
from .measure import profile_upstream as profile_upstream
from .record import Profile as Profile
from .record import read_profiles as read_profiles
from .record import write_profile as write_profile
