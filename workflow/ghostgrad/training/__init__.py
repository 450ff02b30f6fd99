"""How a training step is computed: batches, update rules, schedules, probes, several processes."""
