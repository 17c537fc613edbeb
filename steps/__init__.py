"""What runs inside a job: one program for each step, over the packages that do the work."""
