"""Training of model architectures: tiny random models of each, measured one by one."""
