"""An exact cache of what a frozen upstream computes, in the upstream's place in s3prl's runner."""
