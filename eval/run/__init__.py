"""One head: trained, and evaluated under conditions, by s3prl as it is."""
