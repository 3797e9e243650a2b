"""Work shared out: processes, threads ahead, stages, cores."""
