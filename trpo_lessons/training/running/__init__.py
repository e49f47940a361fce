"""One iteration after another, on disk, and what comes of it: loop, run, run folder, evaluation."""
