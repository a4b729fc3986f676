"""From a study's file to populations that are trained: configuration, plan, data, worker."""
