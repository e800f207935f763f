"""What runs inside the allocation: checks it, starts prime-rl there, and records how it ended.

These files are copied into the run directory when a job is submitted, and run there by prime-rl's
Python: `python RUN/configs/launch/job RUN/configs/launch/launch.json`. So they need the standard
library alone, any Python from 3.9 on, and nothing else of this project.
"""
