"""Model families: each module gives init(config, key) and loss_sum_and_weight(...)."""
