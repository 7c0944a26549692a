"""What people and maintenance do with jobs: lists, bulk commands, single jobs, retention and vacuum."""
