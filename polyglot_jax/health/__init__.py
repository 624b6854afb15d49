"""What a run must not do, and how the trainer notices: see docs/health.md.

guard      on the device, in every step: updates that are not finite, or spikes, are skipped
plunge     the training loss falls away from the held-out loss: the model memorises
probe      texts of fixed prompts: do they repeat themselves?
replicas   devices that should hold the same parameters: do they?
watchdog   no step for too long: stacks, and the end of the process
rewind     back before a spike, past the data that made it
monitor    what the training loop calls: lines, records, tags and the end of a run
"""
